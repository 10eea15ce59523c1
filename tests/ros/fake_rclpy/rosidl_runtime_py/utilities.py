from rosbags.typesys.stores import ros2_humble


def get_message(identifier: str):
    """The class of "std_msgs/msg/String"; as in ROS, ModuleNotFoundError for a package that is not there."""
    found = getattr(ros2_humble, identifier.replace("/", "__"), None)
    if found is None:
        raise ModuleNotFoundError(f"No module named {identifier.partition('/')[0]!r}")
    return found
