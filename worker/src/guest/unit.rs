//! Something long that runs on a server under systemd, and how it is told to begin, followed and judged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use imagewright_common::job::SecretName;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::output::Reading;
use super::{Guest, Said, Unreachable, quoted};

/// What runs: its name, and how long it may, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) limit: i64,
}

/// Where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It was never begun on this boot.
    NotBegun,
    Runs,
    /// It exited with 0.
    Well,
    /// It did not.
    Badly(String),
}

/// What one look has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stands: Stands,
    /// What it wrote since the last look, without secrets.
    pub(crate) output: String,
    /// Where the next look begins, in bytes.
    pub(crate) offset: u64,
}

impl Seen {
    fn of(stands: Stands, bytes: &[u8], reading: &Reading<'_>) -> Seen {
        let has_ended = matches!(stands, Stands::Well | Stands::Badly(_));
        let (output, offset) = reading.take(bytes, has_ended);
        Seen { stands, output, offset }
    }
}

impl Unit {
    /// Begin `script`, unless it has begun. The secrets are in its environment, and nowhere on the disk: `/run` and
    /// `/dev/shm` are memory, and are gone when the server stops.
    pub(crate) async fn begin(
        self,
        guest: &Guest<'_>,
        script: &[u8],
        secrets: &[(SecretName, SecretString)],
    ) -> Result<Said, Unreachable> {
        guest.run(&SecretString::from(self.beginning(script, secrets))).await
    }

    fn beginning(self, script: &[u8], secrets: &[(SecretName, SecretString)]) -> String {
        let exports: String = secrets
            .iter()
            .map(|(name, secret)| format!("export {name}={}\n", quoted(secret.expose_secret())))
            .collect();
        let Unit { name, limit } = self;
        format!(
            r#"set -eu
umask 077
if [ "$(systemctl show --property=LoadState --value {name}.service)" = loaded ]; then exit 0; fi
[ -d /dev/shm/{name} ] || mkdir /dev/shm/{name}
[ "$(stat -c %u /dev/shm/{name})" = 0 ]
mkdir -p /run/{name}
echo '{script}' | base64 -d > /dev/shm/{name}/script
echo '{exports}' | base64 -d > /run/{name}/environment
chmod 700 /dev/shm/{name}/script
: > /run/{name}/output
systemd-run --quiet --no-block --unit={name} --property=Type=oneshot --property=RemainAfterExit=yes \
  --property=TimeoutStartSec={limit} --property=StandardOutput=append:/run/{name}/output \
  --property=StandardError=append:/run/{name}/output --setenv=HOME=/root --setenv=DEBIAN_FRONTEND=noninteractive \
  /bin/sh -c '. /run/{name}/environment; rm -f /run/{name}/environment; exec /dev/shm/{name}/script'
"#,
            script = STANDARD.encode(script),
            exports = STANDARD.encode(exports),
        )
    }

    /// Look at it, and take over what it wrote.
    pub(crate) async fn look(self, guest: &Guest<'_>, reading: &Reading<'_>) -> Result<Seen, Unreachable> {
        let name = self.name;
        let read = reading.command(&format!("/run/{name}/output"));
        let script = format!(
            "systemctl show --property=LoadState --property=ActiveState --property=Result \
             --property=ExecMainStatus {name}.service\necho --\n{read}\n"
        );
        let said = guest.run(&SecretString::from(script)).await?;
        self.seen(&said.stdout, reading).ok_or_else(|| {
            let code = said.code.map_or("a signal".to_owned(), |code| code.to_string());
            Unreachable(format!("{name} cannot be looked at (exit {code}): {}", said.stderr.trim()))
        })
    }

    fn seen(self, text: &str, reading: &Reading<'_>) -> Option<Seen> {
        let (head, output) = text.split_once("--\n")?;
        let value = |key: &str| head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let bytes = STANDARD.decode(output.trim()).ok()?;
        let stands = match (value("LoadState")?, value("ActiveState")?) {
            ("loaded", "activating" | "deactivating" | "reloading") => Stands::Runs,
            ("loaded", "active") => Stands::Well,
            ("loaded", "failed") if value("Result") == Some("timeout") => {
                Stands::Badly(format!("it did not end within {} s", self.limit))
            }
            ("loaded", "failed") => Stands::Badly(format!("exit status {}", value("ExecMainStatus").unwrap_or("?"))),
            _ => Stands::NotBegun,
        };
        Some(Seen::of(stands, &bytes, reading))
    }
}

/// Look at cloud-init, which provisions while the server boots, and take over what it wrote. Its files tell at once what
/// its command takes many seconds for on a slow server (cloud-init: "Status", `/run/cloud-init/result.json`).
pub(crate) async fn look_at_cloud_init(guest: &Guest<'_>, reading: &Reading<'_>) -> Result<Seen, Unreachable> {
    let read = reading.command("/var/log/cloud-init-output.log");
    let script = format!("cat /run/cloud-init/result.json 2>/dev/null | tr -d '\\n'\necho\necho --\n{read}\n");
    let said = guest.run(&SecretString::from(script)).await?;
    of_cloud_init(&said.stdout, reading)
        .ok_or_else(|| Unreachable(format!("no answer of a shell: {}", said.stderr.trim())))
}

fn of_cloud_init(text: &str, reading: &Reading<'_>) -> Option<Seen> {
    let (result, output) = text.split_once("\n--\n")?;
    let bytes = STANDARD.decode(output.trim()).ok()?;
    let result: Option<Value> = serde_json::from_str(result.trim()).ok();
    let stands = match result.as_ref().map(|result| result.pointer("/v1/errors").and_then(Value::as_array)) {
        None => Stands::Runs,
        Some(None) => Stands::Badly("it tells no result".to_owned()),
        Some(Some(errors)) if errors.is_empty() => Stands::Well,
        Some(Some(errors)) => {
            Stands::Badly(errors.iter().map(|error| error.as_str().unwrap_or("?")).collect::<Vec<_>>().join("; "))
        }
    };
    Some(Seen::of(stands, &bytes, reading))
}

#[cfg(test)]
mod tests {
    use super::super::output::Blots;
    use super::*;

    const NOTHING: &Blots = &Blots::none();
    const SCRIPT: Unit = Unit { name: "imagewright-script", limit: 60 };

    fn reading(offset: u64) -> Reading<'static> {
        Reading { offset, cut: false, blots: NOTHING }
    }

    fn seen(load: &str, active: &str, result: &str, status: &str) -> Stands {
        let text =
            format!("LoadState={load}\nActiveState={active}\nResult={result}\nExecMainStatus={status}\n--\naGk=");
        let seen = SCRIPT.seen(&text, &reading(5)).unwrap();
        assert_eq!((seen.output.as_str(), seen.offset), ("hi", 7));
        seen.stands
    }

    #[test]
    fn systemd_tells_how_it_stands() {
        assert_eq!(seen("not-found", "inactive", "success", "0"), Stands::NotBegun);
        assert_eq!(seen("loaded", "activating", "success", "0"), Stands::Runs);
        assert_eq!(seen("loaded", "active", "success", "0"), Stands::Well);
        assert_eq!(seen("loaded", "failed", "exit-code", "3"), Stands::Badly("exit status 3".to_owned()));
        assert!(matches!(seen("loaded", "failed", "timeout", "0"), Stands::Badly(why) if why.contains("60 s")));
        assert_eq!(SCRIPT.seen("sudo: no", &reading(0)), None);
    }

    #[test]
    fn cloud_init_tells_how_it_stands() {
        let stands = |result: &str| of_cloud_init(&format!("{result}\n--\naGk="), &reading(0)).unwrap().stands;
        assert_eq!(stands(""), Stands::Runs);
        assert_eq!(stands(r#"{"v1": {"datasource": "x", "errors": []}}"#), Stands::Well);
        let failed = r#"{"v1": {"datasource": "x", "errors": ["('scripts_user', RuntimeError('1'))"]}}"#;
        assert!(matches!(stands(failed), Stands::Badly(why) if why.contains("scripts_user")));
        assert_eq!(of_cloud_init("sudo: no", &reading(0)), None);
    }

    #[test]
    fn a_secret_is_no_word_of_a_command() {
        let secret = "it's a \"$(secret)\"\nof two lines";
        let secrets = [("TOKEN".parse().unwrap(), SecretString::from(secret.to_owned()))];
        let text = SCRIPT.beginning(b"#!/bin/sh\ntrue\n", &secrets);
        let encoded = STANDARD.encode(format!("export TOKEN={}\n", quoted(secret)));
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(&encoded)).collect();
        // `echo` is part of the shell: no process has it among its arguments.
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("echo '") && lines[0].ends_with("> /run/imagewright-script/environment"));
        assert!(!text.contains("secret"));
    }
}
