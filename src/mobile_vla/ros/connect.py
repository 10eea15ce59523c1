"""One call from a node's configuration to what carries its messages."""

import importlib.util

from mobile_vla.core import ConfigError
from mobile_vla.ros import naming
from mobile_vla.ros.topics import TOPICS
from mobile_vla.ros.transport import Carrier, NodeConfig, Transport


def connect(config: NodeConfig) -> Transport:
    """The node on the wire, over the carrier that ``config`` names.

    AUTO is DDS where cyclonedds can be imported, else rclpy. ConfigError where the carrier is not installed, and for
    names that ROS does not allow or that no topic has; TransportError where it cannot be opened.
    """
    naming.require_known(config.remap, config.namespace, [topic.name for topic in TOPICS])
    match chosen(config.carrier):
        case Carrier.RCLPY:
            from mobile_vla.ros.rclpy_ import RclpyTransport

            return RclpyTransport(config)
        case _:
            try:
                from mobile_vla.ros.dds import DdsTransport
            except Exception as error:  # ImportError, or the library's own error where its C part cannot be loaded
                raise ConfigError(
                    f"cyclonedds is installed but cannot be loaded ({error}): reinstall it, or use --transport rclpy"
                ) from error

            return DdsTransport(config)


def chosen(carrier: Carrier) -> Carrier:
    """What ``carrier`` comes to on this machine: DDS or RCLPY; ConfigError where it is not installed."""
    has_dds, has_rclpy = _installed("cyclonedds"), _installed("rclpy")
    if carrier is Carrier.AUTO and not (has_dds or has_rclpy):
        raise ConfigError(
            "neither cyclonedds nor rclpy can be imported: pip install cyclonedds, or source ROS 2 (setup.bash)"
        )
    if carrier is Carrier.DDS and not has_dds:
        raise ConfigError("the transport dds needs cyclonedds: pip install cyclonedds, or use --transport rclpy")
    if carrier is Carrier.RCLPY and not has_rclpy:
        raise ConfigError("the transport rclpy needs ROS 2: source its setup.bash, or use --transport dds")
    if carrier is Carrier.AUTO:
        return Carrier.DDS if has_dds else Carrier.RCLPY
    return carrier


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
