//! Checks that `DATA_DIR` is writable and that no other process uses it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use super::Finding;

pub(super) fn check_data_dir(folder: &Path) -> Vec<Finding> {
    let shown = folder.display();
    let writable = match writable(folder) {
        Ok(()) => Finding::ok(format!("DATA_DIR ({shown}) is writable")),
        Err(error) => Finding::fail(
            format!("DATA_DIR ({shown}) is not writable: {}", error.kind()),
            "let the user that runs taskcast write to it, or set DATA_DIR to another folder",
        ),
    };
    let free = match is_locked(&folder.join("lock")) {
        false => Finding::ok("no other process uses DATA_DIR"),
        true => Finding::warn(
            format!("a process is using DATA_DIR ({shown})"),
            "if that process is not your gateway, stop it or set DATA_DIR to another folder",
        ),
    };
    vec![writable, free]
}

/// Creates and removes a file in the folder. If the folder does not exist yet, the nearest existing folder above is used.
fn writable(folder: &Path) -> io::Result<()> {
    let existing = folder.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".taskcast-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(probe)
}

/// The embedded store holds a lock on this file for as long as it is open.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn a_folder_in_use_is_a_warning_and_a_file_instead_of_a_folder_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let lock = File::create(folder.path().join("lock")).expect("a file");
        lock.lock().expect("locked");
        let level =
            |path: &Path| check_data_dir(path).iter().map(|finding| finding.level).collect::<Vec<_>>();
        assert_eq!(level(folder.path()), [Level::Ok, Level::Warn]);
        drop(lock);
        assert_eq!(level(folder.path()), [Level::Ok, Level::Ok]);
        assert_eq!(level(&folder.path().join("lock")), [Level::Fail, Level::Ok]);
    }
}
