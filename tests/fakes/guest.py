"""The inside of a server: an SSH server on an address of its own, and scripted answers to what is run there."""

import asyncio
import re
from collections.abc import Callable

import asyncssh

from fakes import userdata
from fakes.commands import Shell
from fakes.faults import Fate


class _Door(asyncssh.SSHServer):
    """Lets in who has a key of that user."""

    def __init__(self, guest: "Guest") -> None:
        self._guest = guest

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._guest.connections += 1

    def begin_auth(self, username: str) -> bool:
        keys = self._guest.login.users.get(username, [])
        if keys and self._guest.fate.login != "denied":
            self._connection.set_authorized_keys(asyncssh.import_authorized_keys("\n".join(keys)))
        return True


class Guest:
    """Of one server. `start` and `stop` are its power switch."""

    def __init__(self, fate: Fate, address: str, port: int, user_data: str | None, key_pair: str | None) -> None:
        self.fate, self.address, self.port = fate, address, port
        self.login = userdata.login(user_data, key_pair)
        if self.login.host_key and fate.login != "impostor":
            self._host_key = asyncssh.import_private_key(self.login.host_key)
        else:
            self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.power_off: Callable[[], None] = lambda: None
        self.connections = 0
        self.shell = Shell(fate)
        self._listener: asyncssh.SSHAcceptor | asyncio.Server | None = None
        self._open: set[asyncssh.connection.SSHConnection] = set()

    @property
    def host_key(self) -> str:
        """The public key that it shows."""
        return self._host_key.export_public_key().decode().strip()

    @property
    def console(self) -> str:
        """What its console shows: the host key as cloud-init prints it, and how that has ended."""
        keys = f"-----BEGIN SSH HOST KEY KEYS-----\n{self.host_key}\n-----END SSH HOST KEY KEYS-----\n"
        ends = {
            "done": "Cloud-init finished at once. Datasource DataSourceConfigDrive. Up 9 seconds\n",
            "error": f"cc_scripts_user.py[WARNING]: {self.fate.cloud_init_error}\n",
            "running": "",
        }
        return f"  Booting `linux'\n\n{keys}{ends[self.fate.cloud_init]}"

    async def start(self) -> None:
        """What was in memory is gone; whoever has a key may log in."""
        self.shell = Shell(self.fate)
        if self.fate.login == "refused":
            return
        if self.fate.login == "silent":
            self._listener = await asyncio.start_server(self._say_nothing, self.address, self.port)
            return
        self._listener = await asyncssh.listen(
            self.address,
            self.port,
            server_factory=lambda: _Door(self),
            server_host_keys=[self._host_key],
            process_factory=self._process,
            password_auth=False,
            kbdint_auth=False,
            encoding=None,
            reuse_address=True,
        )

    async def stop(self) -> None:
        """Nobody listens any more, and who was logged in is cut off."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for connection in list(self._open):
            connection.abort()
        self._open.clear()

    async def _say_nothing(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def _process(self, process: "asyncssh.SSHServerProcess[bytes]") -> None:
        connection = process.channel.get_connection()
        self._open.add(connection)
        command = process.command or ""
        # A shell is told what to do by its input.
        reads = not command or re.search(r"\b(ba)?sh( -s)?$", command.strip("'\" ").replace("'", "")) is not None
        text = (await process.stdin.read()).decode() if reads else command
        said = await self.shell.run(text)
        process.stdout.write(said.stdout.encode())
        process.stderr.write(said.stderr.encode())
        process.exit(said.exit)
        if self.shell.off:
            self.power_off()
