from enum import Enum


class SignalHandlerOptions(Enum):
    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3
