//! The daemon's side: listening, in a thread of its own, so that nothing that is asked delays what is balanced.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as BlockingListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::answer::{Desk, Visitor};
use super::connection::Impatient;
use super::observer::Observer;
use super::peer::{Peer, Rights, group};
use super::{Request, Response};
use crate::config::{Config, ControlConfig, MetricsConfig, ReadableBy, WebConfig};
use crate::daemon::Instance;
use crate::web::Guard;

/// So many connections at a time a listener has, and on the control socket those who may only read; more are closed.
const CONNECTIONS: u32 = 32;
/// How long the head of a request may take, and how long one that is kept open may be idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long somebody may not read what he has asked for.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// More than the longest head of a request.
const BUFFER: usize = 16 * 1024;
/// How long what is under way when the daemon ends may take.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// When to try again to listen, or to accept.
const RETRY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// A request, and where its answer goes.
pub type Asked = (Request, oneshot::Sender<Response>);

/// What is served, as the config says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) control: ControlConfig,
    pub(super) metrics: MetricsConfig,
    pub(super) web: WebConfig,
}

/// What listens.
#[derive(Debug)]
pub struct Services {
    settings: watch::Sender<Settings>,
    socket: PathBuf,
    thread: JoinHandle<()>,
}

impl Services {
    /// Goes by this config from now on.
    pub fn follow(&self, config: &Config) {
        let settings = Settings::of(config);
        admit(&self.socket, &settings.control);
        self.settings.send_if_modified(|present| {
            let changed = *present != settings;
            *present = settings;
            changed
        });
    }

    /// Ends it all, when what has been answered is on its way, a moment from now at most.
    pub fn finish(self) {
        drop(self.settings);
        let _ = self.thread.join();
    }
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self { control: config.control.clone(), metrics: config.metrics.clone(), web: config.web.clone() }
    }
}

/// Listens from now on, as long as somebody takes the requests out of the channel. To be called by the owner of
/// the instance's lock: a socket that an earlier daemon left behind is replaced.
pub fn listen(instance: &Instance, config: &Config) -> io::Result<(mpsc::Receiver<Asked>, Services)> {
    let socket = instance.control_socket();
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = BlockingListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let settings = Settings::of(config);
    admit(&socket, &settings.control);
    let (requests, receiver) = mpsc::channel(16);
    let (sender, settings) = watch::channel(settings);
    let observer = Arc::new(Observer::new(instance.name(), requests));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let name = instance.name().to_owned();
    let serve = move || {
        runtime.block_on(async {
            let desk = Arc::new(Desk::new(observer, settings.clone()));
            let metrics = |settings: &Settings| Ok((settings.metrics.listen, Visitor::Scraper));
            let web = |settings: &Settings| match settings.web.listen {
                Some(address) => {
                    let guard = Guard::new(&name, &settings.web)?;
                    Ok((Some(address), Visitor::Browser(Arc::new(guard))))
                }
                None => Ok((None, Visitor::Scraper)),
            };
            tokio::join!(
                serve_socket(listener, &desk, settings.clone()),
                keep(settings.clone(), "metrics", metrics, &desk),
                keep(settings, "the web page", web, &desk)
            );
        });
    };
    let thread = std::thread::Builder::new().name("http".to_owned()).spawn(serve)?;
    Ok((receiver, Services { settings: sender, socket, thread }))
}

/// Lets those connect who may do anything. What they may, is decided for each: permissions do not tell reading from changing.
/// Without the right to do this there is root, and no reason not to balance.
fn admit(socket: &Path, config: &ControlConfig) {
    let group = group(config);
    let mode = match (config.readable_by, group) {
        (ReadableBy::All, _) => 0o666,
        (ReadableBy::Group, Some(_)) => 0o660,
        (ReadableBy::Group, None) => 0o600,
    };
    // First the group: the one before must not get its rights.
    let owned = group.map_or(Ok(()), |group| nix::unistd::chown(socket, None, Some(group)));
    let admitted = owned
        .map_err(io::Error::from)
        .and_then(|()| fs::set_permissions(socket, Permissions::from_mode(mode)));
    if let Err(error) = admitted {
        tracing::warn!(%error, "the control socket cannot be given to those whom [control] names");
    }
}

async fn serve_socket(listener: BlockingListener, desk: &Arc<Desk>, settings: watch::Receiver<Settings>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen on the control socket"),
    };
    let rights = |stream: &UnixStream| {
        let peer = Peer::of(stream)?;
        let control = settings.borrow().control.clone();
        io::Result::Ok(peer.rights(group(&control), control.readable_by))
    };
    let [seats, guests] = [(); 2].map(|()| Arc::new(Semaphore::new(CONNECTIONS as usize)));
    let serving = async {
        loop {
            let accepted = listener.accept().await;
            match accepted.and_then(|(stream, _)| Ok((rights(&stream)?, stream))) {
                Ok((rights, stream)) => {
                    // Those who may only read can keep nobody else out.
                    let seats = if rights == Rights::Change { &seats } else { &guests };
                    seat(seats, stream, desk, Visitor::Local(rights));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the control socket");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = desk.closing() => {}
    }
    // Until all have left.
    let _ = timeout(LAST_WORDS, seats.acquire_many(CONNECTIONS)).await;
}

/// Listens where the settings say, and elsewhere when they change.
async fn keep(
    mut settings: watch::Receiver<Settings>,
    what: &str,
    wanted: impl Fn(&Settings) -> io::Result<(Option<SocketAddr>, Visitor)>,
    desk: &Arc<Desk>,
) {
    let mut told = None;
    loop {
        let present = settings.borrow_and_update().clone();
        let changed = settings.changed();
        let serving = async {
            let bound = async {
                let (Some(address), visitor) = wanted(&present)? else { return Ok(None) };
                let listener = TcpListener::bind(address).await;
                let listener = listener.map_err(|error| io::Error::other(format!("{address}: {error}")))?;
                io::Result::Ok(Some((listener, visitor)))
            };
            match bound.await {
                Ok(Some((listener, visitor))) => serve_tcp(listener, desk, visitor).await,
                Ok(None) => std::future::pending().await,
                Err(error) => {
                    let failure = format!("cannot serve {what}: {error}");
                    if told.as_ref() != Some(&failure) {
                        tracing::warn!("{failure}; will try again");
                        told = Some(failure);
                    }
                    sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            changed = changed => if changed.is_err() {
                // The daemon ends.
                return;
            },
            () = serving => {}
        }
    }
}

async fn serve_tcp(listener: TcpListener, desk: &Arc<Desk>, visitor: Visitor) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS as usize));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers are not to wait for more of them.
                let _ = stream.set_nodelay(true);
                seat(&seats, stream, desk, visitor.clone());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a connection in the background, if there is room.
fn seat<S>(seats: &Arc<Semaphore>, stream: S, desk: &Arc<Desk>, visitor: Visitor)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(seat) = Arc::clone(seats).try_acquire_owned() else {
        tracing::debug!("too many connections");
        return;
    };
    let desk = Arc::clone(desk);
    tokio::spawn(async move {
        serve(stream, &desk, visitor).await;
        drop(seat);
    });
}

/// Answers the requests of one connection, until it is closed.
async fn serve<S>(stream: S, desk: &Arc<Desk>, visitor: Visitor)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|request| {
        let (desk, visitor) = (Arc::clone(desk), visitor.clone());
        async move { Ok::<_, std::convert::Infallible>(desk.answer(request, &visitor).await) }
    });
    let stream = TokioIo::new(Impatient::new(stream, WRITE_TIME));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER);
    let mut connection = pin!(http.serve_connection(stream, answer));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = desk.closing() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
