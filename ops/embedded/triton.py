"""The embedded Triton: NVIDIA's server out of the `nvidia-pytriton` wheel, in a venv of its own.

It loads the production model repository; the backend named `vllm` is a CPU stand-in
(`ops/triton/backends/vllm`).
"""

from __future__ import annotations

import filecmp
import http.client
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import ops
from ops.embedded.ports import LOOPBACK

MODEL = "gpt-oss-20b"
PROBE_WAIT_S = 2.0
GLIBC_MIN = (2, 35)
PYTHON_BELOW = (3, 13)
FILES = Path(ops.__file__).parent / "triton"
"""Model repository, stand-in backend and the venv's requirements."""
SHARED_MEMORY_BYTES = 4 * 1024 * 1024
"""First size of the channel between the server and a Python model; it grows when needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triton:
    """Where one embedded server keeps its files, what it is made of, and where it listens."""

    home: Path
    venv: Path
    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        """Its gRPC address, for clients."""
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def _packages(self) -> Path:
        return packages(self.venv)

    @property
    def _wheel(self) -> Path:
        return self._packages / "pytriton" / "tritonserver"

    def prepare(self) -> None:
        """Lay out the backends: the wheel's Python one, this Python's stub, and our stand-in."""
        python = self.home / "backends" / "python"
        python.mkdir(parents=True, exist_ok=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self._wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
        for file in (*(self._wheel / "backends" / "python").iterdir(), stub):
            _copy(file, python)
        vllm = self.home / "backends" / "vllm"
        vllm.mkdir(exist_ok=True)
        _copy(FILES / "backends" / "vllm" / "model.py", vllm)

    def command(self) -> list[str]:
        """The command line of the server."""
        return [
            str(self._wheel / "bin" / "tritonserver"),
            f"--model-repository={FILES / 'models'}",
            f"--backend-directory={self.home / 'backends'}",
            f"--http-address={LOOPBACK}",
            f"--http-port={self.http_port}",
            f"--grpc-address={LOOPBACK}",
            f"--grpc-port={self.grpc_port}",
            "--allow-metrics=false",
            "--http-thread-count=2",
            "--exit-timeout-secs=5",
            f"--backend-config=python,shm-default-byte-size={SHARED_MEMORY_BYTES}",
        ]

    def environment(self) -> dict[str, str]:
        """What it needs: the venv's packages, and this interpreter's libpython before any other."""
        libraries = (sysconfig.get_config_var("LIBDIR"), self._packages / "nvidia_pytriton.libs")
        return {
            "PYTHONPATH": str(self._packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        }


def packages(venv: Path) -> Path:
    """The venv's site-packages."""
    return (
        venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    )


def unavailable_because() -> str | None:
    """Why the wheel cannot run here, as the end of a sentence; None where it can."""
    machine = (platform.system(), platform.machine())
    if machine != ("Linux", "x86_64"):
        return f"there is no Triton wheel for {' '.join(machine)}"
    if sys.version_info >= PYTHON_BELOW:
        return "Triton's Python backend needs numpy 1, which has no wheel for Python 3.13"
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < GLIBC_MIN:
        return f"the Triton wheel needs glibc 2.35, and this is {version}"
    return None


def answers(http_port: int) -> bool:
    """Whether the server on the loopback port has loaded the model."""
    connection = http.client.HTTPConnection(LOOPBACK, http_port, timeout=PROBE_WAIT_S)
    try:
        connection.request("GET", f"/v2/models/{MODEL}/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _copy(file: Path, folder: Path) -> None:
    """Copy a file where it differs. Triton refuses links that leave its backend directory."""
    copy = folder / file.name
    if file.is_file() and not (copy.exists() and filecmp.cmp(file, copy)):
        copy.unlink(missing_ok=True)
        shutil.copy2(file, copy)
