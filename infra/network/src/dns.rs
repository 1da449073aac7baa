//! The session's resolver: its questions go to the machine's resolvers.

use crate::rules::Gate;
use smoltcp::wire::{DnsPacket, DnsQuestion, DnsRecord, DnsRecordData};
use std::{
    cell::RefCell,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpStream, UdpSocket},
};

/// The longest time that a resolver may take before the next is asked.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest time that a connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest answer over UDP: what EDNS allows.
const LARGEST: usize = 65_535;

/// The name in a question, in lower case; `None` if it is no question.
fn question(message: &[u8]) -> Option<String> {
    let packet = DnsPacket::new_checked(message).ok()?;
    if packet.question_count() != 1 || packet.flags().bits() & 0x8000 != 0 {
        return None;
    }
    read_question(message)
}

fn read_question(message: &[u8]) -> Option<String> {
    let packet = DnsPacket::new_checked(message).ok()?;
    let (_, question) = DnsQuestion::parse(packet.payload()).ok()?;
    let mut name = String::new();
    for label in packet.parse_name(question.name) {
        let label = label.ok()?;
        // A dot or a strange character in a label is in no name that is allowed.
        if !label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.') || name.len() > 255 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&std::str::from_utf8(label).ok()?.to_ascii_lowercase());
    }
    Some(name)
}

/// The addresses in an answer to a question about `name`.
fn addresses(message: &[u8], name: &str) -> Vec<IpAddr> {
    let Ok(packet) = DnsPacket::new_checked(message) else {
        return Vec::new();
    };
    if packet.question_count() != 1 || read_question(message).as_deref() != Some(name) {
        return Vec::new();
    }
    let Ok((mut rest, _)) = DnsQuestion::parse(packet.payload()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for _ in 0..packet.answer_record_count().min(256) {
        let Ok((after, record)) = DnsRecord::parse(rest) else {
            break;
        };
        match record.data {
            DnsRecordData::A(address) => found.push(IpAddr::V4(address)),
            DnsRecordData::Aaaa(address) => found.push(IpAddr::V6(address)),
            _ => {}
        }
        rest = after;
    }
    found
}

/// The answer that there will be none.
fn refusal(question: &[u8], code: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    answer
}

const REFUSED: u8 = 5;
const FAILED: u8 = 2;

/// The machine's resolvers, as they are now.
///
/// # Source
///
/// `resolv.conf(5)`: up to three lines `nameserver`; without one, the name server of this machine.
fn resolvers() -> Vec<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // A zone, as in `fe80::1%eth0`, is left to the one resolver in thousands that has it.
        address.parse::<IpAddr>().ok()
    });
    let mut all: Vec<SocketAddr> = named.take(3).map(|address| SocketAddr::new(address, 53)).collect();
    if all.is_empty() {
        all.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    all
}

/// Answers one question.
///
/// Returns `None` for what is no question, and what it was about if it was refused.
pub(crate) async fn answer(gate: &RefCell<Gate>, question: &[u8]) -> Option<Result<Vec<u8>, String>> {
    let name = self::question(question)?;
    if !gate.borrow().resolves(&name) {
        return Some(Err(name));
    }
    for resolver in resolvers() {
        match tokio::time::timeout(RESOLVER_TIMEOUT, ask(resolver, question)).await {
            Ok(Ok(answer)) => {
                learn(gate, &name, &answer);
                return Some(Ok(answer));
            }
            Ok(Err(error)) => tracing::debug!(%resolver, %error, "a resolver does not answer"),
            Err(_) => tracing::debug!(%resolver, "a resolver does not answer in time"),
        }
    }
    Some(Ok(refusal(question, FAILED)))
}

/// The refusal of a question.
pub(crate) fn refuse(question: &[u8]) -> Vec<u8> {
    refusal(question, REFUSED)
}

fn learn(gate: &RefCell<Gate>, name: &str, answer: &[u8]) {
    for address in addresses(answer, name) {
        gate.borrow_mut().names.learn(address, name);
    }
}

/// Asks by an id and from a port that the session does not know, so that nobody in it can answer in
/// the resolver's place.
async fn ask(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
        .parse()
        .expect("an address");
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut sent = question.to_vec();
    sent[..2].copy_from_slice(&id);
    socket.send(&sent).await?;
    let mut answer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 12 && answer[..2] == id {
            answer.truncate(length);
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

/// Serves a connection to the resolver, which begins each message with its length (RFC 1035,
/// 4.2.2).
pub(crate) async fn serve(
    gate: &RefCell<Gate>,
    mut session: DuplexStream,
    mut refused: impl FnMut(String),
) -> io::Result<()> {
    let mut upstream = None;
    loop {
        let length = tokio::time::timeout(SILENCE, session.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(SILENCE, session.read_exact(&mut question)).await??;
        let Some(name) = self::question(&question) else {
            return Ok(());
        };
        let answer = if gate.borrow().resolves(&name) {
            match tokio::time::timeout(RESOLVER_TIMEOUT, ask_by_stream(&mut upstream, &question)).await {
                Ok(Ok(answer)) => {
                    learn(gate, &name, &answer);
                    answer
                }
                _ => {
                    upstream = None;
                    refusal(&question, FAILED)
                }
            }
        } else {
            refused(name);
            refuse(&question)
        };
        session.write_u16(answer.len() as u16).await?;
        session.write_all(&answer).await?;
    }
}

async fn ask_by_stream(upstream: &mut Option<TcpStream>, question: &[u8]) -> io::Result<Vec<u8>> {
    if upstream.is_none() {
        *upstream = Some(TcpStream::connect(&resolvers()[..]).await?);
    }
    let stream = upstream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
    stream.write_u16(question.len() as u16).await?;
    stream.write_all(question).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u16, questions: u16, answers: u16, rest: &[u8]) -> Vec<u8> {
        let mut all = vec![1, 2];
        for number in [flags, questions, answers, 0, 0] {
            all.extend(number.to_be_bytes());
        }
        all.extend(rest);
        all
    }

    const A_ORG: &[u8] = b"\x01A\x03org\0\0\x01\0\x01";

    #[test]
    fn a_question_is_about_one_name_in_lower_case() {
        assert_eq!(question(&message(0x100, 1, 0, A_ORG)).as_deref(), Some("a.org"));
        assert_eq!(question(&message(0x8100, 1, 0, A_ORG)), None, "it is an answer");
        assert_eq!(question(&message(0x100, 2, 0, A_ORG)), None);
        assert_eq!(question(&message(0x100, 1, 0, b"\x03a.b\0\0\x01\0\x01")), None);
        assert_eq!(
            question(&message(0x100, 1, 0, b"\xc0\x0c\0\x01\0\x01")),
            None,
            "it points to itself"
        );
        for length in 0..message(0x100, 1, 0, A_ORG).len() {
            assert_eq!(question(&message(0x100, 1, 0, A_ORG)[..length]), None);
        }
    }

    #[test]
    fn the_addresses_of_an_answer_are_those_of_its_question_alone() {
        let mut rest = A_ORG.to_vec();
        rest.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e");
        rest.extend(b"\x01b\xc0\x0e\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
        let answer = message(0x8180, 1, 2, &rest);
        assert_eq!(addresses(&answer, "a.org"), ["1.2.3.4".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses(&answer, "b.org"), [] as [IpAddr; 0]);
        assert_eq!(refusal(&message(0x100, 1, 0, A_ORG), REFUSED)[2..4], [0x81, 0x85]);
    }
}
