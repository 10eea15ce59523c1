"""As much of rclpy as RclpyTransport calls, with the signatures of Humble; all within one process."""

from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


def init(
    *,
    args: list[str] | None = None,
    context: Context | None = None,
    domain_id: int | None = None,
    signal_handler_options: SignalHandlerOptions | None = None,
) -> None:
    assert context is not None
    assert signal_handler_options is SignalHandlerOptions.NO, "a context of one's own must not take the signals"
    context.init(args, domain_id=domain_id)


def create_node(
    node_name: str,
    *,
    context: Context | None = None,
    cli_args: list[str] | None = None,
    namespace: str | None = None,
    use_global_arguments: bool = True,
    enable_rosout: bool = True,
    start_parameter_services: bool = True,
) -> Node:
    return Node(node_name, context=context, namespace=namespace)


def shutdown(*, context: Context | None = None, uninstall_handlers: bool | None = None) -> None:
    context.shutdown()
