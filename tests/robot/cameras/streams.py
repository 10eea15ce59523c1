"""Servers of streams: MJPEG over HTTP by the standard library, RTSP by GStreamer's server in a process of its own."""

import base64
import contextlib
import io
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from mobile_vla.robot.cameras.drawing import Drawing

DRAWING = Drawing(96, 64, seed=1)
BOUNDARY = "one-picture-ends-here"


class MjpegServer:
    """Numbered pictures at 30 Hz to whoever asks; may be stopped and begun again at the same address.

    ``mood``: "well", "silent" (connected, but no more pictures), "mute" (no answer), "garbled" (no JPEG in the parts),
    "text" (a page in place of pictures). ``password`` asks for user "robot" with it.
    """

    def __init__(self, password=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.password, self.mood, self.number = password, "well", 0
        self._server = None

    def url(self, credentials=""):
        return f"http://{credentials}127.0.0.1:{self.port}/video"

    def start(self):
        owner, self._over = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(ConnectionError):
                    owner.answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address, daemon_threads, block_on_close = True, False, True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def stop(self):
        if self._server is None:
            return
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = None

    def answer(self, request):
        if self.password is not None:
            wanted = "Basic " + base64.b64encode(f"robot:{self.password}".encode()).decode()
            if request.headers.get("Authorization") != wanted:
                request.send_response(401)
                request.send_header("WWW-Authenticate", 'Basic realm="camera"')
                request.end_headers()
                return
        if self.mood == "mute":
            self._over.wait()
            return
        request.send_response(200)
        if self.mood == "text":
            request.send_header("Content-Type", "text/html")
            request.end_headers()
            request.wfile.write(b"<html>log in</html>")
            return
        request.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        request.end_headers()
        due_s = time.monotonic()
        while not self._over.is_set():
            if self.mood != "silent":
                self._send(request)
            due_s += 1 / 30
            self._over.wait(max(0.0, due_s - time.monotonic()))

    def _send(self, request):
        self.number += 1
        data = b"no picture" if self.mood == "garbled" else jpeg(DRAWING.picture(self.number))
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        request.wfile.write(head.encode() + data + b"\r\n")
        request.wfile.flush()


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


RTSP = """
import sys, threading
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[1])
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
loop = GLib.MainLoop()
threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
loop.run()
"""
"""Run by the system's Python, which sees gir1.2-gst-rtsp-server-1.0; ends with its standard input."""


@contextlib.contextmanager
def rtsp_server(launch):
    """The address of an RTSP server that plays ``launch``, whose payloader is called pay0."""
    command = ["/usr/bin/python3", "-c", RTSP, launch]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"rtsp://127.0.0.1:{int(server.stdout.readline())}/camera", server
        finally:
            server.kill()
