//! The socket under a connection, and the handle that ends it.
//!
//! lapin runs each connection on a thread of its own, which a caller that gives up waiting does not stop: an attempt
//! that hangs in the AMQP handshake would keep its thread and its socket for as long as the other side pleases, once
//! per retry. So a second handle on the socket is kept here, and shutting it down ends the thread in every state: in
//! the handshake, while the broker blocks writes, on a silent link.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::quiet::quiet_this_thread;

/// Shuts the socket down when dropped, at whatever stage its connection is.
#[derive(Debug, Default)]
pub(super) struct Fuse(Arc<Mutex<Wire>>);

#[derive(Debug, Default)]
enum Wire {
    #[default]
    Unconnected,
    Connected(TcpStream),
    /// The fuse is gone: a socket that comes now is not wanted.
    Cut,
}

impl Fuse {
    /// Opens a connection whose socket ends with this fuse.
    pub(super) async fn dial(
        &self,
        uri: AMQPUri,
        tls: OwnedTLSConfig,
        properties: ConnectionProperties,
        limit: Duration,
    ) -> lapin::Result<Connection> {
        let wire = self.0.clone();
        // This runs on lapin's thread, which goes on when the future here is dropped: hence a limit of its own.
        Connection::connector(
            uri,
            lapin::runtime::default_runtime()?,
            async move |uri, runtime| {
                // The thread is lapin's own, and its logs would hold the password.
                quiet_this_thread();
                let connect = async {
                    let address = (uri.authority.host.clone(), uri.authority.port);
                    let plain = AsyncTcpStream::connect(&runtime, runtime.to_socket_addrs(address)).await?;
                    if let AsyncTcpStream::Plain(stream) = &plain {
                        connected(&wire, duplicate(stream.get_ref())?)?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(plain),
                        AMQPScheme::AMQPS => plain.into_tls(&uri.authority.host, tls.as_ref()).await,
                    }
                };
                let late =
                    || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"));
                Ok(timeout(limit, connect).await.unwrap_or_else(|_| Err(late()))?)
            },
            properties,
        )
        .await
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Wire::Connected(socket) = std::mem::replace(&mut *self.0.lock(), Wire::Cut) {
            // Fails only where the socket is dead already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn connected(wire: &Mutex<Wire>, socket: TcpStream) -> io::Result<()> {
    let mut wire = wire.lock();
    if matches!(*wire, Wire::Cut) {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the attempt was given up"));
    }
    *wire = Wire::Connected(socket);
    Ok(())
}

#[cfg(unix)]
fn duplicate(socket: &impl std::os::fd::AsFd) -> io::Result<TcpStream> {
    Ok(socket.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn duplicate(socket: &impl std::os::windows::io::AsSocket) -> io::Result<TcpStream> {
    Ok(socket.as_socket().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read},
        net::TcpListener,
        thread::JoinHandle,
    };

    use tokio::sync::oneshot;

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    /// A listener that takes one connection, answers nothing, says when it was greeted, and gives what it read until the
    /// other side ended.
    fn mute(scheme: &str) -> (AMQPUri, oneshot::Receiver<()>, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let (greeting, greeted) = oneshot::channel();
        let mut greeting = Some(greeting);
        let reading = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(BOUND)).unwrap();
            let (mut all, mut some) = (Vec::new(), [0; 512]);
            loop {
                match socket.read(&mut some) {
                    Ok(0) => return all,
                    Ok(count) => all.extend_from_slice(&some[..count]),
                    // A socket with unread data is reset rather than ended.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
                    Err(error) => panic!("the socket stayed open: {error}"),
                }
                if all.len() >= 8 {
                    let _ = greeting.take().map(|greeting| greeting.send(()));
                }
            }
        });
        (uri, greeted, reading)
    }

    /// Dials, gives up once greeted, and gives what the other side had read when the socket ended.
    async fn read_of_a_given_up_attempt(scheme: &str) -> Vec<u8> {
        let (uri, greeted, reading) = mute(scheme);
        let fuse = Fuse::default();
        tokio::select! {
            result = fuse.dial(uri, OwnedTLSConfig::default(), ConnectionProperties::default(), BOUND) => {
                panic!("nobody answered, yet: {result:?}")
            }
            greeted = greeted => greeted.unwrap(),
        }
        drop(fuse);
        tokio::task::spawn_blocking(|| reading.join().unwrap()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_attempt_that_hangs_in_the_handshake_leaves_no_socket_behind() {
        assert_eq!(read_of_a_given_up_attempt("amqp").await, b"AMQP\0\0\x09\x01");
    }

    /// Built without a certificate store, lapin speaks plain AMQP for `amqps`, password and all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn amqps_begins_with_a_tls_handshake() {
        let read = read_of_a_given_up_attempt("amqps").await;
        assert_eq!(read.first(), Some(&0x16), "a TLS handshake record, not {read:?}");
    }

    #[test]
    fn a_socket_that_comes_after_its_attempt_was_given_up_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fuse = Fuse::default();
        let wire = fuse.0.clone();
        drop(fuse);
        assert_eq!(connected(&wire, socket).unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
