//! A name server that answers what the test tells it to, and forgets nothing: every answer may be used for no time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// Types of records: an IPv4 and an IPv6 address.
const A: u16 = 1;
const AAAA: u16 = 28;
/// A header has 12 bytes; type and class come after the name in a question.
const HEADER: usize = 12;

type Records = Arc<Mutex<HashMap<String, Vec<IpAddr>>>>;

/// A name server over UDP; it ends with the test.
pub struct Dns {
    pub address: SocketAddr,
    records: Records,
    task: JoinHandle<()>,
}

impl Dns {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records = Records::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&records)));
        Self { address, records, task }
    }

    /// Where a name leads from now on.
    pub fn say(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.records.lock().unwrap().insert(name.to_owned(), addresses);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, records: Records) {
    let mut buffer = [0; 1500];
    loop {
        let (size, client) = socket.recv_from(&mut buffer).await.unwrap();
        let answer = answer(&buffer[..size], &records);
        socket.send_to(&answer, client).await.unwrap();
    }
}

fn answer(question: &[u8], records: &Records) -> Vec<u8> {
    let (mut name, mut at) = (Vec::new(), HEADER);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        name.push(String::from_utf8(question[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let found = records.lock().unwrap().get(&name.join(".")).cloned();
    let code: u8 = if found.is_some() { 0 } else { 3 };
    let of_kind = |address| match address {
        IpAddr::V4(address) => (kind == A).then(|| address.octets().to_vec()),
        IpAddr::V6(address) => (kind == AAAA).then(|| address.octets().to_vec()),
    };
    let data: Vec<Vec<u8>> = found.unwrap_or_default().into_iter().filter_map(of_kind).collect();
    let mut answer = question[..2].to_vec();
    // An answer, by a server that recurses; one question, and as many answers as there are.
    answer.extend([0x81, 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(&question[HEADER..at + 5]);
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
