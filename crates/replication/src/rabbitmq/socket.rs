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
