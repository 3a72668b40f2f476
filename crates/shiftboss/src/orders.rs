//! The ways of orders to the driver. That of requests is short: whoever asks for more than is done waits. That of the
//! program around takes all of them, in the order in which they are given, since a program must not wait.

use tokio::sync::mpsc;

use crate::handle::Order;

/// The driver's end of both.
pub(crate) struct Orders {
    requests: mpsc::Sender<Order>,
    of_requests: mpsc::Receiver<Order>,
    of_program: mpsc::UnboundedReceiver<Order>,
}

impl Orders {
    /// With the end of a program; there is none if it is dropped.
    pub(crate) fn new() -> (mpsc::UnboundedSender<Order>, Orders) {
        let (requests, of_requests) = mpsc::channel(WAITING);
        let (program, of_program) = mpsc::unbounded_channel();
        (program, Orders { requests, of_requests, of_program })
    }

    /// The other end of the way of requests.
    pub(crate) fn requests(&self) -> mpsc::Sender<Order> {
        self.requests.clone()
    }

    /// How many there are: more may come as quickly as they are taken.
    pub(crate) fn len(&self) -> usize {
        self.of_requests.len() + self.of_program.len()
    }

    pub(crate) fn try_next(&mut self) -> Option<Order> {
        self.of_program.try_recv().or_else(|_| self.of_requests.try_recv()).ok()
    }

    /// Waits for the next one. None is lost if that is given up.
    pub(crate) async fn next(&mut self) -> Option<Order> {
        tokio::select! {
            Some(order) = self.of_program.recv() => Some(order),
            order = self.of_requests.recv() => order,
        }
    }
}

/// So many requests may wait.
const WAITING: usize = 64;
