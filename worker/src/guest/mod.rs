//! A server that was booted by a build, from the inside: logging in by SSH, and what is run there.
//!
//! Every look is a connection of its own. What takes long runs under systemd on the server, and is polled: no connection
//! has to live as long as it does.

pub(crate) mod output;
pub(crate) mod unit;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use openssh::{KnownHosts, Session, SessionBuilder, Stdio};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::builders::Keys;

/// Who logs in; exists on builders alone.
pub(crate) const USER: &str = "imagewright";

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The longest that one look may take, connection included.
const LOOK_MAX: Duration = Duration::from_secs(18);

/// The longest that each of stdout and stderr may be, in bytes; what is asked for is far shorter.
const SAID_MAX: u64 = 1024 * 1024;

/// Where a server can be reached, and by what it is known.
pub(crate) struct Guest<'a> {
    pub(crate) address: &'a str,
    pub(crate) port: u16,
    pub(crate) keys: &'a Keys,
}

/// What a command came to.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Why nothing could be asked: there is no answer, or not from whom it should be.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) String);

impl Guest<'_> {
    /// Run a shell script as root.
    pub(crate) async fn run(&self, script: &SecretString) -> Result<Said, Unreachable> {
        match timeout(LOOK_MAX, self.connect_and_run(script)).await {
            Ok(said) => said.map_err(|error| Unreachable(format!("{error:#}"))),
            Err(_) => Err(Unreachable(format!("no answer within {} s", LOOK_MAX.as_secs()))),
        }
    }

    async fn connect_and_run(&self, script: &SecretString) -> anyhow::Result<Said> {
        let folder = tempfile::Builder::new().prefix("imagewright-ssh-").tempdir()?;
        let session = self.connect(&folder).await?;
        let said = talk(&session, script).await;
        // The server may be gone by now, as after it was told to power off.
        let closed = session.close().await;
        tracing::trace!(?closed, "logged out");
        said
    }

    async fn connect(&self, folder: &TempDir) -> anyhow::Result<Session> {
        let at = |name: &str| folder.path().join(name);
        write_private(&at("key"), self.keys.user.private.expose_secret())?;
        // ssh looks for the plain address where the port is its own (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
        let host = if self.port == 22 { self.address.to_owned() } else { format!("[{}]:{}", self.address, self.port) };
        write_private(&at("known_hosts"), &format!("{host} {}\n", self.keys.host.public))?;
        write_private(
            &at("config"),
            "Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  ForwardAgent no\n  LogLevel ERROR\n",
        )?;
        let mut builder = SessionBuilder::default();
        builder
            .user(USER.to_owned())
            .port(self.port)
            .keyfile(at("key"))
            .known_hosts_check(KnownHosts::Strict)
            .user_known_hosts_file(at("known_hosts"))
            .config_file(at("config"))
            .control_directory(folder.path())
            .connect_timeout(CONNECT_MAX);
        Ok(builder.connect(self.address).await?)
    }
}

async fn talk(session: &Session, script: &SecretString) -> anyhow::Result<Said> {
    let mut command = session.command("sudo");
    command.args(["-n", "sh", "-s"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().await?;
    let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    // With an error of one of them the child is dropped, and killed with that.
    let (_, stdout, stderr) = tokio::try_join!(write(stdin, script), read(stdout), read(stderr))?;
    let code = match child.wait().await {
        // openssh makes an error of exit status 127.
        Err(openssh::Error::Remote(error)) if error.kind() == std::io::ErrorKind::NotFound => Some(127),
        status => status?.code(),
    };
    Ok(Said { code, stdout, stderr })
}

async fn write(stdin: Option<impl AsyncWrite + Unpin>, script: &SecretString) -> anyhow::Result<()> {
    if let Some(mut stdin) = stdin {
        stdin.write_all(script.expose_secret().as_bytes()).await?;
        stdin.shutdown().await?;
    }
    Ok(())
}

/// What a server says to its end, which may not come.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(SAID_MAX + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > SAID_MAX {
        anyhow::bail!("the server says more than the {} MiB that an answer may have", SAID_MAX / (1024 * 1024));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// A word of a shell script, whatever is in it.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_says_too_much_is_not_heard_to_the_end() {
        let most = usize::try_from(SAID_MAX).unwrap();
        assert_eq!(read(Some(&vec![b'x'; most][..])).await.unwrap().len(), most);
        let error = read(Some(tokio::io::repeat(b'x'))).await.unwrap_err().to_string();
        assert!(error.contains("more than the 1 MiB"), "{error}");
    }
}
