"""OpenPGP keys and signatures made by GnuPG, like those of Ubuntu's image lists, and a mirror of such lists."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from harness.https import FileServer

VERSIONS = {"focal": "20.04", "jammy": "22.04", "noble": "24.04", "resolute": "26.04"}
UBUNTU_ARCH = {"amd64": "amd64", "arm64": "arm64", "s390x": "s390x", "ppc64le": "ppc64el", "armhf": "arm64"}


class SigningKey:
    """A key in a keyring of its own. `expires` is what GnuPG takes, as in `20260101T000000` or `seconds=2`."""

    def __init__(self, folder: Path, expires: str = "0", now: str | None = None) -> None:
        self._home = folder / "gnupg"
        self._home.mkdir(mode=0o700, parents=True)
        name = f"Image Signer {folder.name} <signer@example.org>"
        dated = ["--faked-system-time", now] if now else []
        self._gpg(*dated, "--quick-generate-key", name, "rsa2048", "sign", expires)
        listed = self._gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def keyring(self, path: Path, *, armour: bool = False) -> Path:
        """Writes the public key there."""
        path.write_bytes(self._gpg(*(["--armor"] if armour else []), "--export", self.fingerprint))
        return path

    def sign(self, data: bytes, *options: str) -> bytes:
        """A detached signature, armoured as Ubuntu's are."""
        return self._gpg("--armor", *options, "--detach-sign", "--output", "-", "-", given=data)

    def revoke(self) -> None:
        """Publishes that the key is void."""
        made = next((self._home / "openpgp-revocs.d").glob("*.rev")).read_text()
        self._gpg("--import", given=made.replace(":-----BEGIN", "-----BEGIN").encode())

    def stop(self) -> None:
        """Ends the agent that GnuPG has started."""
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False, capture_output=True)

    def _gpg(self, *words: str, given: bytes = b"") -> bytes:
        gpg = shutil.which("gpg")
        assert gpg, "GnuPG is missing: python -m harness.debian installs it"
        quiet = ["--homedir", str(self._home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]
        done = subprocess.run(
            [gpg, *quiet, "--passphrase", "", *words], input=given, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


class Mirror:
    """A tree like cloud-images.ubuntu.com beneath `url`, in the folder `name` of the file server."""

    def __init__(self, files: FileServer, name: str) -> None:
        self._files = files
        self._name = name
        self.url = f"{files.url}/files/{name}"

    def place(self, base: str, file: str) -> str:
        """The path of a file of a release."""
        return f"{self._name}/releases/{base}/release/{file}"

    def publish(self, key: SigningKey, base: str, arch: str, disk: Path, *options: str) -> str:
        """Puts an image there with a signed list, and gives back its digest."""
        data = disk.read_bytes()
        name = f"ubuntu-{VERSIONS[base]}-server-cloudimg-{UBUNTU_ARCH[arch]}.img"
        digest = hashlib.sha256(data).hexdigest()
        lines = f"{'0' * 64} *{name}.manifest\n{digest} *{name}\n".encode()
        self._files.files[self.place(base, name)] = data
        self._files.files[self.place(base, "SHA256SUMS")] = lines
        self._files.files[self.place(base, "SHA256SUMS.gpg")] = key.sign(lines, *options)
        return digest

    def change(self, base: str, file: str, data: bytes | None) -> None:
        """Replaces or removes a file."""
        if data is None:
            del self._files.files[self.place(base, file)]
        else:
            self._files.files[self.place(base, file)] = data

    def asked(self, base: str, file: str) -> int:
        """How often a file was asked for."""
        return self._files.counts[f"/files/{self.place(base, file)}"]
