//! Keeps the secret of a development gateway in a file, so that its tokens stay valid after a restart.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rand::Rng;

use super::Secret;

const BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum DevSecretError {
    #[error("the development secret can't be kept in DATA_DIR ({}): {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the development secret in DATA_DIR ({}) is damaged: delete the file, and a new one is made", path.display())]
    Damaged { path: PathBuf },
}

pub(super) fn read_or_make(path: &Path) -> Result<Secret, DevSecretError> {
    let failed = |source| DevSecretError::File { path: path.to_owned(), source };
    if let Some(secret) = read(path)? {
        return Ok(secret);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    make_private_folder(folder).map_err(failed)?;
    // `serve` and `token` may create the secret at the same time. Each writes a complete file under another name and
    // then links it. The first link wins.
    let whole = folder.join(format!(".dev-secret-{}", hex::<8>()));
    let made = write(&whole, &hex::<BYTES>()).and_then(|()| fs::hard_link(&whole, path));
    let removed = fs::remove_file(&whole);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => removed.map_err(failed)?,
    }
    read(path)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn read(path: &Path) -> Result<Option<Secret>, DevSecretError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let secret = text.trim();
            let usable = secret.len() == BYTES * 2 && secret.bytes().all(|b| b.is_ascii_hexdigit());
            match usable {
                true => Ok(Some(Secret::new(secret))),
                false => Err(DevSecretError::Damaged { path: path.to_owned() }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DevSecretError::File { path: path.to_owned(), source }),
    }
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn hex<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_generated_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data/dev-secret");
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| read_or_make(&path))).collect();
            threads.into_iter().map(|thread| thread.join().expect("ends").expect("a secret")).collect()
        });
        assert_eq!(secrets[0].expose().len(), 64);
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert_eq!(read_or_make(&path).expect("a secret"), secrets[0]);
        let left: Vec<_> = fs::read_dir(folder.path().join("data")).expect("a folder").collect();
        assert_eq!(left.len(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_secret_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dev-secret");
        for text in ["", "short", &"g".repeat(64)] {
            fs::write(&path, text).expect("written");
            assert!(matches!(read_or_make(&path), Err(DevSecretError::Damaged { .. })), "{text}");
        }
    }
}
