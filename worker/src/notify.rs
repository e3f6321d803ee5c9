//! Talking to the service manager: the protocol of `sd_notify(3)`, datagrams to `$NOTIFY_SOCKET`. Without that variable
//! nothing is sent.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::vitals::Vitals;

/// Between two looks at our health where the manager wants no sign of life.
const LOOK: Duration = Duration::from_secs(5);

/// How long a manager that does not read is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who started us, if that wants to know.
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    /// How long the manager waits for a sign of life.
    watchdog: Option<Duration>,
    is_ready: AtomicBool,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub(crate) fn from_environment() -> Notifier {
        Notifier::new(&|name| std::env::var_os(name))
    }

    fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Notifier {
        let socket = variable("NOTIFY_SOCKET").and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, ?address, "the service manager cannot be told anything: NOTIFY_SOCKET");
                None
            }
        });
        let number = |name| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Notifier { socket, watchdog, is_ready: AtomicBool::new(false) }
    }

    /// Say how the process fares whenever that changes, and give signs of life while it is well. Never returns.
    pub(crate) async fn follow(self: Arc<Self>, vitals: Arc<Vitals>) {
        let mut ticks = interval(self.watchdog.map_or(LOOK, |limit| (limit / 2).max(Duration::from_millis(1))));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = vitals.unseen();
        let mut said = None;
        loop {
            let status = vitals.readiness().err().unwrap_or("taking jobs");
            if vitals.readiness().is_ok() && !self.is_ready() && self.send("READY=1").await {
                self.is_ready.store(true, Ordering::Relaxed);
            }
            if said != Some(status) && self.send(&format!("STATUS={status}")).await {
                said = Some(status);
            }
            tokio::select! {
                _ = ticks.tick() => match vitals.health() {
                    Ok(()) if self.watchdog.is_some() => drop(self.send("WATCHDOG=1").await),
                    Ok(()) => {}
                    Err(reason) => tracing::error!(reason, "not well"),
                },
                () = vitals.changed(&mut seen) => {}
            }
        }
    }

    /// The configuration is being read again; [`Notifier::reloaded`] ends that.
    pub(crate) async fn reloading(&self) {
        if self.is_ready() {
            let now = clock_gettime(ClockId::Monotonic);
            let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}")).await;
        }
    }

    /// It was read.
    pub(crate) async fn reloaded(&self) {
        if self.is_ready() {
            self.send("READY=1").await;
        }
    }

    /// The process takes no more jobs, and ends once those in hand have.
    pub(crate) async fn stopping(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
        self.send("STOPPING=1\nSTATUS=stopping").await;
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// Returns whether it was said, or nobody wants to hear it. A manager that does not read holds nobody up for long.
    async fn send(&self, text: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let sent = timeout(PATIENCE, socket.send(text.as_bytes())).await;
        if !matches!(sent, Ok(Ok(_))) {
            tracing::debug!(?sent, text, "the service manager was not told");
        }
        matches!(sent, Ok(Ok(_)))
    }
}

/// A path, or an abstract name after `@`.
fn connect(address: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram as Manager;

    use super::*;

    fn manager(name: &str) -> (Manager, String) {
        let name = format!("imagewright-test-{name}-{}", std::process::id());
        let manager = Manager::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (manager, format!("@{name}"))
    }

    fn notifier(variables: &[(&str, String)]) -> Notifier {
        Notifier::new(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value.as_str()))
        })
    }

    fn heard(manager: &Manager) -> String {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn nothing_is_said_to_nobody() {
        let quiet = notifier(&[]);
        quiet.stopping().await;
        assert!(quiet.socket.is_none() && quiet.watchdog.is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "/nowhere/at/all".to_owned())]).socket.is_none());
    }

    #[tokio::test]
    async fn an_abstract_name_is_an_address() {
        let (manager, address) = manager("abstract");
        notifier(&[("NOTIFY_SOCKET", address)]).stopping().await;
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=stopping");
    }

    #[tokio::test]
    async fn only_our_own_watchdog_is_served() {
        let usec = ("WATCHDOG_USEC", "3000000".to_owned());
        let of = |pid: u32| notifier(&[usec.clone(), ("WATCHDOG_PID", pid.to_string())]).watchdog;
        assert_eq!(notifier(std::slice::from_ref(&usec)).watchdog, Some(Duration::from_secs(3)));
        assert_eq!(of(std::process::id()), Some(Duration::from_secs(3)));
        assert_eq!(of(1), None);
    }

    #[tokio::test]
    async fn a_reload_before_it_is_ready_says_nothing() {
        let (manager, address) = manager("reload");
        let notifier = notifier(&[("NOTIFY_SOCKET", address)]);
        notifier.reloading().await;
        notifier.reloaded().await;
        notifier.is_ready.store(true, Ordering::Relaxed);
        notifier.reloading().await;
        let said = heard(&manager);
        assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    }

    #[tokio::test]
    async fn what_a_slow_manager_has_no_room_for_is_said_once_it_has() {
        let (manager, address) = manager("slow");
        let notifier = Arc::new(notifier(&[("NOTIFY_SOCKET", address)]));
        while timeout(Duration::from_millis(50), notifier.send("WATCHDOG=1")).await.is_ok() {}
        let stopping = tokio::spawn(async move { notifier.stopping().await });
        let listening = tokio::task::spawn_blocking(move || while !heard(&manager).starts_with("STOPPING=1") {});
        stopping.await.unwrap();
        listening.await.unwrap();
    }
}
