//! Single flight: callers that need the same data at the same moment share one read.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use crate::{store::StoreError, tables::GiveBack};

/// Reads in progress, by what they read.
#[derive(Debug)]
pub struct Flights<K, V>(Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V> Flights<K, V> {
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
        let (flight, shared) = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(key) {
                Some(flight) => (flight.clone(), true),
                None => (flights.entry(key.clone()).or_default().clone(), false),
            }
        };
        let value = flight.get_or_try_init(|| read).await.cloned();
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, &flight)) {
            flights.remove(key);
            flights.give_back();
        }
        value.map(|value| (value, shared))
    }
}
