"""ROS 2, with or without ROS installed: messages, the table of topics, what carries them, and the nodes."""
