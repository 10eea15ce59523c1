import time

from rclpy import node as nodes


class SingleThreadedExecutor:
    def __init__(self, *, context=None) -> None:
        self._nodes, self._woken, self._shut = [], False, False

    def add_node(self, node) -> bool:
        self._nodes.append(node)
        return True

    def wake(self) -> None:
        with nodes._lock:
            self._woken = True
            nodes._lock.notify_all()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run at most one callback, waiting for it at most ``timeout_sec``."""
        assert not self._shut
        until = time.monotonic() + timeout_sec
        with nodes._lock:
            while True:
                for end in nodes._ends:
                    if isinstance(end, nodes.Subscription) and end.node in self._nodes and end.kept:
                        data = end.kept.popleft()
                        break
                else:
                    left = until - time.monotonic()
                    if left <= 0 or self._woken:
                        self._woken = False
                        return
                    nodes._lock.wait(left)
                    continue
                break
        end.callback(data)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        self._shut = True
        return True
