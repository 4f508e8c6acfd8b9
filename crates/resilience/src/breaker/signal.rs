//! How those who wait for a breaker hear of it: a list of wakers under a short lock.
//!
//! Waiters hold no place in a queue: each stir wakes all of them, and each looks for itself. So no wake-up can be lost
//! with a waiter that was dropped, and the list is as long as there are waiting futures, no longer.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::snapshot::State;
use crate::sync::Mutex;

/// What the waiters are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    pub(super) state: State,
    pub(super) generation: u64,
    /// Rises whenever a look is worth it.
    pub(super) stirs: u64,
    /// Whether nobody can change anything any more.
    pub(super) over: bool,
}

#[derive(Debug)]
pub(super) struct Signal {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    news: News,
    next_waiter: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Signal {
    pub(super) fn new(news: News) -> Self {
        Self { inner: Mutex::new(Inner { news, next_waiter: 0, waiting: Vec::new() }) }
    }

    pub(super) fn news(&self) -> News {
        self.inner.lock().news
    }

    /// Tells the news. The wakers are for the caller to wake once it holds no lock: a waker may run anything.
    #[must_use = "the wakers have to be woken"]
    pub(super) fn tell(&self, news: News) -> Vec<Waker> {
        let mut inner = self.inner.lock();
        inner.news = news;
        inner.waiting.drain(..).map(|(_, waker)| waker).collect()
    }

    /// Tells that there will be no more news.
    pub(super) fn end(&self) {
        let news = News { over: true, ..self.news() };
        self.tell(news).into_iter().for_each(Waker::wake);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn waiting(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Waits until something has stirred since `stirs`, or it is over.
    pub(super) fn past(&self, stirs: u64) -> Past<'_> {
        Past { signal: self, stirs, waiter: None }
    }
}

/// The future of [`Signal::past`].
#[derive(Debug)]
pub(super) struct Past<'a> {
    signal: &'a Signal,
    stirs: u64,
    /// The number under which its waker is listed, or was.
    waiter: Option<u64>,
}

impl Future for Past<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waker = context.waker().clone();
        let mut inner = self.signal.inner.lock();
        if inner.news.over || inner.news.stirs != self.stirs {
            drop(inner);
            return Poll::Ready(());
        }
        // A waker is dropped after the lock, here and below, since its drop may run anything.
        let listed = self.waiter.and_then(|id| inner.waiting.iter_mut().find(|(waiter, _)| *waiter == id));
        if let Some((_, before)) = listed {
            std::mem::swap(before, &mut waker);
            drop(inner);
            return Poll::Pending;
        }
        let id = inner.next_waiter;
        inner.next_waiter += 1;
        inner.waiting.push((id, waker));
        drop(inner);
        self.waiter = Some(id);
        Poll::Pending
    }
}

impl Drop for Past<'_> {
    fn drop(&mut self) {
        let Some(id) = self.waiter else { return };
        let mut inner = self.signal.inner.lock();
        let listed = inner.waiting.iter().position(|(waiter, _)| *waiter == id);
        let waker = listed.map(|at| inner.waiting.swap_remove(at));
        drop(inner);
        drop(waker);
    }
}
