//! The source of events: writes to MongoDB, or `POST` requests to a server without MongoDB.

use std::{cell::RefCell, error::Error, io, net::SocketAddr, rc::Rc};

use hdrhistogram::Histogram;
use memchr::memmem;
use mongodb::{
    Client, Database,
    bson::{DateTime, Document, doc, oid::ObjectId},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::OwnedWriteHalf,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
};

use crate::{
    measure::{histogram, now},
    options::{Options, Write, task_id},
    packet::Marker,
    ws,
};

/// The number of concurrent writers. All writes to one task go through one writer, so that they stay in order.
const WRITERS: usize = 16;
/// The maximum number of writes in one command, when several are due.
const MAX_BATCH: usize = 100;
const STATUSES: [&str; 5] = ["analyzing", "needs_clarification", "dispatched", "coding", "pr_open"];

#[derive(Debug)]
pub enum Source {
    Mongo { writers: Vec<UnboundedSender<Marker>>, commits: Rc<RefCell<Histogram<u64>>> },
    Publish { to: SocketAddr, half: OwnedWriteHalf, pad: String },
}

impl Source {
    pub async fn open(options: &Rc<Options>) -> Result<Self, Box<dyn Error>> {
        if let Some(uri) = &options.mongo {
            let database = Client::with_uri_str(uri).await?.database(&options.db);
            let commits = Rc::new(RefCell::new(histogram()));
            let writers = (0..options.tasks.clamp(1, WRITERS)).map(|_| {
                let (sender, due) = unbounded_channel();
                spawn_local(write(database.clone(), options.clone(), due, commits.clone()));
                sender
            });
            return Ok(Self::Mongo { writers: writers.collect(), commits });
        }
        let to = options.urls[0];
        let (mut answers, half) = ws::tcp(to, 0).await?.into_split();
        spawn_local(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(len @ 1..) = answers.read(&mut buffer).await {
                if memmem::find(&buffer[..len], b"HTTP/1.1 2").is_none() && buffer.starts_with(b"HTTP") {
                    eprintln!("publish: {}", String::from_utf8_lossy(&buffer[..len]));
                }
            }
        });
        Ok(Self::Publish { to, half, pad: "x".repeat(options.pad) })
    }

    pub async fn send(&mut self, markers: &[Marker]) -> io::Result<()> {
        match self {
            Self::Mongo { writers, .. } => {
                for marker in markers {
                    let writer = &writers[marker.stream as usize % writers.len()];
                    writer.send(*marker).map_err(io::Error::other)?;
                }
                Ok(())
            }
            Self::Publish { to, half, pad } => {
                let items: Vec<String> = markers.iter().map(|marker| item(*marker, pad)).collect();
                let body = format!("[{}]", items.join(","));
                let request = format!(
                    "POST /publish HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                half.write_all(request.as_bytes()).await
            }
        }
    }
}

/// One event for a server without MongoDB. It is as long as the event that taskcast sends for such a write.
fn item(marker: Marker, pad: &str) -> String {
    let id = task_id(marker.stream as usize);
    format!(
        r#"{{"room":"task:{id}","event":"task:updated","payload":{{"taskId":"{id}","status":"analyzing","changed":{{"title":"{}{pad}"}},"updatedAt":"2026-01-01T00:00:00.000Z","eventId":"0000000000000000-000000-000000","occurredAt":"2026-01-01T00:00:00.000Z"}}}}"#,
        marker.text()
    )
}

fn update(options: &Options, marker: Marker) -> Document {
    let id = ObjectId::parse_str(task_id(marker.stream as usize)).expect("hex");
    let title = format!("{}{}", marker.text(), "x".repeat(options.pad));
    let change = match options.write {
        Write::Title => doc! {"$set": {"title": title, "updatedAt": DateTime::now()}},
        Write::Full => {
            let status = STATUSES[marker.n as usize % STATUSES.len()];
            let entry = doc! {"eventType": "step", "payload": {"message": marker.text()}, "createdAt": DateTime::now()};
            doc! {"$set": {"status": status, "title": title, "updatedAt": DateTime::now()}, "$push": {"events": entry}}
        }
    };
    doc! {"q": {"_id": id}, "u": change}
}

/// Writes with MongoDB's default write concern: MongoDB answers when the write is in the journal.
async fn write(
    database: Database,
    options: Rc<Options>,
    mut due: UnboundedReceiver<Marker>,
    commits: Rc<RefCell<Histogram<u64>>>,
) {
    let mut markers = Vec::new();
    while due.recv_many(&mut markers, MAX_BATCH).await > 0 {
        let updates: Vec<Document> = markers.iter().map(|marker| update(&options, *marker)).collect();
        match database.run_command(doc! {"update": "tasks", "updates": updates}).await {
            Ok(answer) if !answer.contains_key("writeErrors") => {}
            other => eprintln!("write: {other:?}"),
        }
        let now = now();
        for marker in markers.drain(..) {
            commits.borrow_mut().record(now.saturating_sub(marker.due).max(1)).ok();
        }
    }
}
