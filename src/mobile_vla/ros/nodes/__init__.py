"""The processes of a robot: camera, inference, control, monitoring, and the simulated robot as fifth.

Each is a class that is given its parts and a transport, and has ``run(stop)``: it works until the event is set.
"""
