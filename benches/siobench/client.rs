//! One client: connects with a token, joins rooms, answers pings, and counts the events that it receives.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hdrhistogram::Histogram;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::{JoinHandle, spawn_local},
    time::timeout,
};

use crate::{
    joins::Joins,
    measure::{histogram, now, quantiles, rounded},
    options::{Options, Recovery},
    packet::{self, Kind},
    stats::{ReceivedNumbers, Stats},
    ws::Ws,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The measurements and counters that all clients of a run share.
#[derive(Debug)]
pub struct RunState {
    pub options: Rc<Options>,
    pub stats: RefCell<Stats>,
    /// The times from opening the TCP connection to the server's CONNECT packet.
    pub handshakes: RefCell<Histogram<u64>>,
    /// The times from the CONNECT packet until the server has sent the state of every joined room.
    pub joins: RefCell<Histogram<u64>>,
    pub ready: Cell<usize>,
    pub failed: Cell<usize>,
    pub closed: Cell<usize>,
    /// The total number of events at which `reached` is notified.
    pub goal: Cell<u64>,
    pub reached: Notify,
}

impl RunState {
    pub fn new(options: &Rc<Options>) -> Rc<Self> {
        Rc::new(Self {
            options: options.clone(),
            stats: RefCell::new(Stats::from(u64::MAX)),
            handshakes: RefCell::new(histogram()),
            joins: RefCell::new(histogram()),
            ready: Cell::new(0),
            failed: Cell::new(0),
            closed: Cell::new(0),
            goal: Cell::new(u64::MAX),
            reached: Notify::new(),
        })
    }

    fn check_goal(&self) {
        if self.stats.borrow().total >= self.goal.get() {
            self.goal.set(u64::MAX);
            self.reached.notify_one();
        }
    }

    pub fn fail(&self, n: usize, error: &io::Error) {
        self.failed.set(self.failed.get() + 1);
        if self.failed.get() == 1 {
            eprintln!("client {n}: {error}");
        }
    }

    pub fn summary(&self, seconds: f64, cpu: f64) -> Value {
        let ready = self.ready.get() as f64;
        json!({
            "ready": ready, "failed": self.failed.get(), "connects_per_s": (ready / seconds).round(),
            "handshake_ms": quantiles(&self.handshakes.borrow()), "join_ms": quantiles(&self.joins.borrow()),
            "cpu_ms_per_connect": rounded(cpu * 1e3 / ready.max(1.0)),
        })
    }
}

#[derive(Debug, Default)]
pub struct Client {
    pub n: usize,
    pub received_numbers: ReceivedNumbers,
    /// The time at which the client began to connect.
    pub started: u64,
    /// The last `eventId` or offset, if the client needs it to recover.
    pub last: Option<String>,
    /// The private session id (`pid`), which the library's recovery needs.
    pub session: Option<String>,
    pub recovered: bool,
}

impl Client {
    pub fn new(n: usize) -> Self {
        Self { n, ..Self::default() }
    }

    fn connect_packet(&self, options: &Options) -> io::Result<String> {
        let key = EncodingKey::from_secret(options.secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &options.claims(self.n), &key);
        let mut auth = json!({"token": token.map_err(io::Error::other)?});
        if let (Some(session), Some(offset)) = (&self.session, &self.last) {
            auth["pid"] = json!(session);
            auth["offset"] = json!(offset);
        }
        Ok(format!("40{auth}"))
    }

    /// Connects, and waits until every join has been answered.
    pub async fn connect(&mut self, state: &RunState, joins: &Joins) -> io::Result<Ws> {
        match timeout(CONNECT_TIMEOUT, self.connect_and_join(state, joins)).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn connect_and_join(&mut self, state: &RunState, joins: &Joins) -> io::Result<Ws> {
        let options = &state.options;
        self.started = now();
        self.recovered = false;
        let mut ws = Ws::connect(options.urls[self.n % options.urls.len()], self.n).await?;
        ws.send(&self.connect_packet(options)?).await?;
        let (mut connected, mut states, mut acks) = (None, 0, 0);
        loop {
            let before = connected;
            let (mut refused, mut ping) = (None, false);
            let open = ws
                .read(&mut |packet| match packet {
                    b"2" => ping = true,
                    [b'4', b'0', ..] => {
                        connected = Some(now());
                        let session = packet::string(packet, "pid").map(str::to_owned);
                        self.recovered = session.is_some() && session == self.session;
                        self.session = session;
                    }
                    [b'4', b'4', ..] => refused = Some(String::from_utf8_lossy(packet).into_owned()),
                    [b'4', b'3', ..] => {
                        acks += 1;
                        self.recovered = memchr::memmem::find(packet, b"\"recovered\":true").is_some();
                    }
                    [b'4', b'2', ..] => match self.record(state, packet) {
                        Kind::State => states += 1,
                        Kind::Error => refused = Some(String::from_utf8_lossy(packet).into_owned()),
                        _ => {}
                    },
                    _ => {}
                })
                .await?;
            if ping {
                ws.send("3").await?;
            }
            if let Some(refused) = refused {
                return Err(io::Error::other(refused));
            }
            if !open {
                return Err(io::Error::other("closed before everything was joined"));
            }
            let Some(at) = connected else { continue };
            let by_library = self.recovered && options.recovery == Recovery::Library;
            if before.is_none() {
                state.handshakes.borrow_mut().record(at - self.started).ok();
                if !by_library {
                    for packet in &joins.packets {
                        ws.send(packet).await?;
                    }
                }
            }
            if by_library || (states >= joins.states && acks >= joins.acks) {
                state.joins.borrow_mut().record((now() - at).max(1)).ok();
                return Ok(ws);
            }
        }
    }

    fn record(&mut self, state: &RunState, packet: &[u8]) -> Kind {
        if self.last.is_some() || self.session.is_some() {
            let last = match state.options.recovery {
                Recovery::Since => packet::string(packet, "eventId"),
                Recovery::Library => packet::offset(packet),
            };
            if let Some(last) = last {
                self.last = Some(last.to_owned());
            }
        }
        state.stats.borrow_mut().record(packet, &mut self.received_numbers, self.started)
    }

    /// Receives packets until the connection is closed.
    pub async fn listen(&mut self, state: &RunState, ws: &mut Ws) {
        loop {
            let mut ping = false;
            let open = ws
                .read(&mut |packet| match packet {
                    b"2" => ping = true,
                    [b'4', b'2', ..] => {
                        self.record(state, packet);
                    }
                    _ => {}
                })
                .await;
            state.check_goal();
            if !matches!(open, Ok(true)) || (ping && ws.send("3").await.is_err()) {
                return;
            }
        }
    }
}

async fn run_client(state: Rc<RunState>, n: usize, joins: Joins, permit: OwnedSemaphorePermit) {
    let mut client = Client::new(n);
    match client.connect(&state, &joins).await {
        Ok(mut ws) => {
            state.ready.set(state.ready.get() + 1);
            drop(permit);
            client.listen(&state, &mut ws).await;
            state.closed.set(state.closed.get() + 1);
        }
        Err(error) => state.fail(n, &error),
    }
}

/// Connects these clients, `at_once` at a time. Returns the seconds that this took, and the tasks in which the clients continue.
pub async fn open(state: &Rc<RunState>, clients: std::ops::Range<usize>) -> (f64, Vec<JoinHandle<()>>) {
    let (started, at_once) = (now(), state.options.at_once);
    let permits = Arc::new(Semaphore::new(at_once));
    let mut tasks = Vec::with_capacity(clients.len());
    for n in clients {
        let permit = permits.clone().acquire_owned().await.expect("never closed");
        let joins = Joins::of(&state.options, n);
        tasks.push(spawn_local(run_client(state.clone(), n, joins, permit)));
    }
    let _all = permits.acquire_many(at_once as u32).await.expect("never closed");
    ((now() - started) as f64 / 1e6, tasks)
}
