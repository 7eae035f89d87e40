//! The parts of a node that must not end.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};

use super::AppError;

/// The tasks that must run until the process ends.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tasks: JoinSet<AppError>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    pub fn spawn_fallible(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), AppError>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(async move { part.await.err().unwrap_or(AppError::Ended(name)) });
        self.names.insert(task.id(), name);
    }

    pub fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            part.await;
            Ok(())
        });
    }

    pub async fn first_end(&mut self) -> AppError {
        match self.tasks.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(panic)) => AppError::Panicked(self.names.get(&panic.id()).copied().unwrap_or_default()),
            None => AppError::Ended("all parts"),
        }
    }
}
