//! Single flight: callers that need the same data at the same moment share one read.

use std::{hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::{shrinking_map::ShrinkingMap, store::StoreError};

#[derive(Debug)]
struct Flight<V> {
    value: Arc<OnceCell<Arc<V>>>,
    callers: usize,
}

/// Reads in progress, by what they read.
#[derive(Debug)]
pub struct SingleFlight<K: Eq + Hash, V>(Mutex<ShrinkingMap<K, Flight<V>>>);

impl<K: Eq + Hash, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// One caller's share in a read. If the futures of all its callers are dropped before the read ends, the last one removes the read.
struct Share<'a, K: Eq + Hash, V> {
    flights: &'a SingleFlight<K, V>,
    key: &'a K,
    value: Arc<OnceCell<Arc<V>>>,
}

impl<K: Clone + Eq + Hash, V> SingleFlight<K, V> {
    /// Returns the value, and whether its read may have begun before this call. A `fresh` read is never shared.
    pub async fn share(
        &self,
        key: &K,
        fresh: bool,
        read: impl Future<Output = Result<Arc<V>, StoreError>>,
    ) -> Result<(Arc<V>, bool), StoreError> {
        if fresh {
            return Ok((read.await?, false));
        }
        let (share, is_shared) = self.join(key);
        let value = share.value.get_or_try_init(|| read).await.cloned();
        // A caller that comes from now on needs a newer read.
        let mut flights = self.0.lock();
        if share.is_current(&flights) {
            flights.remove(key);
        }
        drop(flights);
        value.map(|value| (value, is_shared))
    }

    /// Returns a share in the read of this key, and whether another caller began the read.
    fn join<'a>(&'a self, key: &'a K) -> (Share<'a, K, V>, bool) {
        let mut flights = self.0.lock();
        let flight =
            flights.entry(key.clone()).or_insert_with(|| Flight { value: Arc::default(), callers: 0 });
        flight.callers += 1;
        (Share { flights: self, key, value: flight.value.clone() }, flight.callers > 1)
    }
}

impl<K: Eq + Hash, V> Share<'_, K, V> {
    fn is_current(&self, flights: &ShrinkingMap<K, Flight<V>>) -> bool {
        flights.get(self.key).is_some_and(|flight| Arc::ptr_eq(&flight.value, &self.value))
    }
}

impl<K: Eq + Hash, V> Drop for Share<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        if !self.is_current(&flights) {
            return;
        }
        if let Some(flight) = flights.get_mut(self.key) {
            flight.callers -= 1;
            if flight.callers == 0 {
                flights.remove(self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn callers_share_a_read_and_later_callers_do_not() {
        let flights = SingleFlight::<u8, u8>::default();
        let (send, receive) = oneshot::channel();
        let mut first =
            pin!(flights.share(&1, false, async { Ok(Arc::new(receive.await.expect("a value"))) }));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = pin!(flights.share(&1, false, pending()));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(
            flights.share(&1, true, async { Ok(Arc::new(9)) }).await.expect("a value"),
            (Arc::new(9), false)
        );
        send.send(5).expect("a receiver");
        assert_eq!(first.await.expect("a value"), (Arc::new(5), false));
        assert_eq!(second.await.expect("a value"), (Arc::new(5), true));
        assert_eq!(
            flights.share(&1, false, async { Ok(Arc::new(6)) }).await.expect("a value"),
            (Arc::new(6), false)
        );
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_read_whose_callers_are_dropped_is_removed() {
        let flights = SingleFlight::<u8, u8>::default();
        {
            let mut first = Box::pin(flights.share(&1, false, pending()));
            assert!(first.as_mut().now_or_never().is_none());
            let mut second = Box::pin(flights.share(&1, false, async { Ok(Arc::new(7)) }));
            assert!(second.as_mut().now_or_never().is_none());
            drop(first);
            assert_eq!(second.await.expect("a value"), (Arc::new(7), true), "the other caller reads itself");
            let mut third = Box::pin(flights.share(&1, false, pending()));
            assert!(third.as_mut().now_or_never().is_none());
            assert_eq!(flights.0.lock().len(), 1);
        }
        assert!(flights.0.lock().is_empty());
    }
}
