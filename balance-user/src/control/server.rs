//! The daemon's side: listening. Only root can connect, by the socket's permissions.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::{Request, Response};
use crate::daemon::Instance;

/// More than the longest request.
const MAX_REQUEST: u64 = 4096;

/// A request, and where its answer goes.
pub type Asked = (Request, oneshot::Sender<Response>);

/// Listens from now on, as long as somebody takes the requests out of the channel. To be called by the owner of
/// the instance's lock: a socket that an earlier daemon left behind is replaced.
pub fn listen(instance: &Instance) -> io::Result<mpsc::Receiver<Asked>> {
    let path = instance.control_socket();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let (requests, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while !requests.is_closed() {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve(stream, requests.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the control socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(receiver)
}

/// Answers the requests of one connection, until it is closed.
async fn serve(stream: UnixStream, requests: mpsc::Sender<Asked>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        match (&mut reader).take(MAX_REQUEST).read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => answer(request, &requests).await,
            Err(error) => Some(Response::Error { message: format!("not a request: {error}") }),
        };
        let Some(response) = response else { return };
        let Ok(mut text) = serde_json::to_string(&response) else { return };
        text.push('\n');
        if writer.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(request: Request, requests: &mpsc::Sender<Asked>) -> Option<Response> {
    let (sender, receiver) = oneshot::channel();
    requests.send((request, sender)).await.ok()?;
    receiver.await.ok()
}
