//! Starts a real redis-server on a free port.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The longest time that a test waits for the server.
const DEADLINE: Duration = Duration::from_secs(60);

/// Prints the id of the server's process. Kills the server and removes its folder when standard input closes, because a test
/// binary may be killed.
const WATCHDOG: &str = r#"dir=$1; shift; "$@" >"$dir/log" 2>&1 & pid=$!
echo $pid; read -r _; kill -9 $pid; wait $pid 2>/dev/null; rm -rf "$dir""#;

/// A redis-server process, which is killed on drop.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    pid: Pid,
    watchdog: Child,
}

impl Redis {
    pub fn start() -> Self {
        let port = free_port();
        let dir = tempfile::Builder::new().prefix("taskcast-redis-").tempdir().expect("a folder").keep();
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&dir)
            .arg(binary())
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let stdout = watchdog.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let pid = Pid::from_raw(line.trim().parse().expect("a process id")).expect("a process id");
        let server = Self { port, pid, watchdog };
        let deadline = Instant::now() + DEADLINE;
        while server.try_command("PING").is_none() {
            assert!(Instant::now() < deadline, "redis-server does not get ready");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command without spaces in its arguments.
    pub fn command(&self, command: &str) {
        self.try_command(command).expect("Redis accepts the command");
    }

    /// The server stops answering, but its connections stay open.
    pub fn freeze(&self) {
        kill_process(self.pid, Signal::STOP).expect("stopped");
    }

    pub fn unfreeze(&self) {
        kill_process(self.pid, Signal::CONT).expect("continued");
    }

    fn try_command(&self, command: &str) -> Option<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).ok()?;
        (answer == *b"+").then_some(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn binary() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-deps/redis-server");
    let path = env::var_os("TASKCAST_TEST_REDIS").map_or_else(default, PathBuf::from);
    assert!(
        path.is_file(),
        "no redis-server at {}: run `make test-deps`, or name one (7.0 or newer) in TASKCAST_TEST_REDIS",
        path.display()
    );
    path
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
