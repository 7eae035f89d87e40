//! The parts of a node that must not end.

use std::future::Future;

use super::AppError;

/// The tasks that must run until the process ends.
#[derive(Debug, Default)]
pub(super) struct Parts(tokio::task::JoinSet<AppError>);

impl Parts {
    pub fn run(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), AppError>> + Send + 'static,
    ) {
        self.0.spawn(async move { part.await.err().unwrap_or(AppError::Ended(name)) });
    }

    pub fn run_forever(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.run(name, async {
            part.await;
            Ok(())
        });
    }

    pub async fn first_end(&mut self) -> AppError {
        match self.0.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(_)) | None => AppError::Ended("it panicked"),
        }
    }
}
