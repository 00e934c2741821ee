"""Certificates made by the openssl command for one test; none is kept in the tree."""
import subprocess
import tempfile
from pathlib import Path


class Authority:
    """Signs. `ca` is its own certificate."""

    def __init__(self, name="ca"):
        self.folder, self.n = Path(tempfile.mkdtemp(prefix="certs-")), 0
        self.ca, self.key = self.folder / "ca.pem", self.folder / "ca.key"
        openssl("req", "-x509", *KEY, "-keyout", self.key, "-out", self.ca, "-days", 2, "-subj", f"/CN={name}")

    def issue(self, *names, to=None):
        """-> a PEM file with certificate and key for these names, the first also its subject's."""
        self.n += 1
        path = to or self.folder / f"{self.n}.pem"
        key, request, extensions = (self.folder / f"{self.n}.{what}" for what in ("key", "csr", "ext"))
        extensions.write_text("subjectAltName=" + ",".join(names))
        openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={names[0].split(':')[1]}")
        text = openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-set_serial", self.n,
                       "-days", 2, "-extfile", extensions)
        path.write_bytes(text + key.read_bytes())
        return str(path)


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True).stdout
