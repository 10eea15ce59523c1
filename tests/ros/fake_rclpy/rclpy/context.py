class Context:
    def __init__(self) -> None:
        self.domain_id = None
        self._ok = False

    def init(self, args=None, *, initialize_logging: bool = True, domain_id: int | None = None) -> None:
        if self._ok:
            raise RuntimeError("Context.init() must only be called once")
        self.domain_id = 0 if domain_id is None else domain_id
        self._ok = True

    def ok(self) -> bool:
        return self._ok

    def shutdown(self) -> None:
        if not self._ok:
            raise RuntimeError("Context must be initialized before it can be shutdown")
        self._ok = False
