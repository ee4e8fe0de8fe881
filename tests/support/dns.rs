//! A name server that answers what the test tells it to, and forgets nothing: every answer may be used for no time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

/// Types of records: an IPv4 address, another name, and an IPv6 address.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// A header has 12 bytes; type and class come after the name in a question.
const HEADER: usize = 12;
/// What does not fit is asked for again over TCP.
const DATAGRAM: usize = 512;
/// The flag of an answer that was cut.
const TRUNCATED: u8 = 2;

/// What is answered about a name.
#[derive(Clone, Debug)]
pub enum Reply {
    Addresses(Vec<IpAddr>),
    /// SERVFAIL is 2, NXDOMAIN 3 and REFUSED 5.
    Code(u8),
    /// The name is another's, about which nothing is said.
    Alias(&'static str),
    /// After this time.
    Late(Duration, Vec<IpAddr>),
}

#[derive(Default)]
struct Book {
    replies: HashMap<String, Reply>,
    asked: Vec<String>,
}

/// A name server over UDP and TCP; it ends with the test.
pub struct Dns {
    pub address: SocketAddr,
    book: Arc<Mutex<Book>>,
    tasks: [JoinHandle<()>; 2],
}

impl Dns {
    pub async fn start() -> Self {
        // A port of UDP that TCP has free too.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let book = Arc::<Mutex<Book>>::default();
        let tasks = [
            tokio::spawn(serve_datagrams(Arc::new(udp), Arc::clone(&book))),
            tokio::spawn(serve_connections(tcp, Arc::clone(&book))),
        ];
        Self { address, book, tasks }
    }

    /// Where a name leads from now on.
    pub fn say(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.reply(name, Reply::Addresses(addresses));
    }

    pub fn reply(&self, name: &str, reply: Reply) {
        self.book.lock().unwrap().replies.insert(name.to_owned(), reply);
    }

    /// The types and names that it was asked about, each time: `AAAA gpu1.lab`.
    pub fn asked(&self) -> Vec<String> {
        self.book.lock().unwrap().asked.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, book: Arc<Mutex<Book>>) {
    let mut buffer = [0; 1500];
    loop {
        let (size, client) = socket.recv_from(&mut buffer).await.unwrap();
        let (question, socket, book) = (buffer[..size].to_vec(), Arc::clone(&socket), Arc::clone(&book));
        tokio::spawn(async move {
            let mut answer = answer(&question, &book).await;
            if answer.len() > DATAGRAM {
                answer.truncate(HEADER + question_of(&question).1);
                answer[2] |= TRUNCATED;
                answer[6..HEADER].fill(0);
            }
            let _ = socket.send_to(&answer, client).await;
        });
    }
}

async fn serve_connections(listener: TcpListener, book: Arc<Mutex<Book>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let book = Arc::clone(&book);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await?;
                let answer = answer(&question, &book).await;
                stream.write_u16(answer.len().try_into().unwrap()).await?;
                stream.write_all(&answer).await?;
            }
            std::io::Result::Ok(())
        });
    }
}

/// The name that is asked about, and the length of the whole question.
fn question_of(message: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (Vec::new(), HEADER);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        name.push(String::from_utf8(message[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    (name.join("."), at + 5 - HEADER)
}

async fn answer(question: &[u8], book: &Mutex<Book>) -> Vec<u8> {
    let (name, length) = question_of(question);
    let end = HEADER + length;
    let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
    let reply = {
        let mut book = book.lock().unwrap();
        let of = if kind == AAAA { "AAAA" } else { "A" };
        book.asked.push(format!("{of} {name}"));
        book.replies.get(&name).cloned().unwrap_or(Reply::Code(3))
    };
    let (code, kind, data) = match reply {
        Reply::Code(code) => (code, kind, Vec::new()),
        Reply::Alias(other) => (0, CNAME, vec![written(other)]),
        Reply::Addresses(addresses) => (0, kind, of_kind(&addresses, kind)),
        Reply::Late(wait, addresses) => {
            tokio::time::sleep(wait).await;
            (0, kind, of_kind(&addresses, kind))
        }
    };
    let mut answer = question[..2].to_vec();
    // An answer, by a server that recurses; one question, and as many answers as there are.
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    for data in data {
        // The name of the question, this type, class IN, and no time to live.
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

fn of_kind(addresses: &[IpAddr], kind: u16) -> Vec<Vec<u8>> {
    let data = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => (kind == A).then(|| address.octets().to_vec()),
        IpAddr::V6(address) => (kind == AAAA).then(|| address.octets().to_vec()),
    });
    data.collect()
}

/// A name as it stands in a record.
fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
