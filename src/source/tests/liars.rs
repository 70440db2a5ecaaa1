//! Misbehaving servers, alone and before an honest mirror. Each misbehaviour is a row of a table.
//!
//! Alone, it leads to an error of the right kind, and to no blob. A client that waited for the end of an answer would hang, because the
//! servers that never finish an answer wait for an hour. Before an honest mirror, the right bytes are fetched.

use super::*;

type Answer = fn(&Request, &mut std::net::TcpStream) -> std::io::Result<()>;

struct Liar {
    name: &'static str,
    answer: Answer,
    /// The outcome if the server is the only mirror.
    alone: Alone,
}

enum Alone {
    /// The download succeeds after a few tries.
    Good,
    Bad(Kind, &'static str),
}
use Alone::{Bad, Good};
use Kind::{Network, Refused};

const SIZE: &str = "1200000";

const LIARS: &[Liar] = &[
    // Connections.
    Liar { name: "hangs up", answer: |_, _| Ok(()), alone: Bad(Network, "connection closed") },
    Liar { name: "says nothing", answer: |_, _| pause(), alone: Bad(Network, "no answer within") },
    Liar { name: "not a web server", answer: |_, stream| stream.write_all(b"SSH-2.0-x\r\n"), alone: Bad(Network, "") },
    Liar { name: "resets at once", answer: |_, stream| reset(stream), alone: Bad(Network, "onnection") },
    Liar {
        name: "resets in the middle",
        answer: |_, stream| {
            ok(stream, SIZE)?;
            stream.write_all(&data()[..100_000])?;
            reset(stream)
        },
        alone: Bad(Network, "broke off"),
    },
    Liar {
        name: "ends in the middle",
        answer: |_, stream| {
            ok(stream, SIZE)?;
            stream.write_all(&data()[..100_000])
        },
        alone: Bad(Network, "broke off"),
    },
    Liar {
        name: "ends in the middle, and every time a little later",
        answer: |request, stream| {
            let (data, from) = (data(), request.from().unwrap_or(0));
            match from {
                0 => ok(stream, SIZE)?,
                _ => part(stream, &format!("{from}-1199999/1200000"), data.len() - from)?,
            }
            stream.write_all(&data[from..data.len().min(from + 500_000)])
        },
        alone: Good,
    },
    Liar {
        name: "stalls",
        answer: |_, stream| {
            ok(stream, SIZE)?;
            stream.write_all(&data()[..100_000])?;
            pause()
        },
        alone: Bad(Network, "stalled"),
    },
    Liar {
        name: "drips",
        answer: |_, stream| {
            ok(stream, SIZE)?;
            drip(stream, &data())
        },
        alone: Bad(Network, "too slow"),
    },
    Liar {
        name: "drips its headers",
        answer: |_, stream| drip(stream, &b"HTTP/1.1 200 OK\r\n".repeat(20)),
        alone: Bad(Network, "no answer within"),
    },
    Liar {
        name: "has endless headers",
        answer: |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            forever(stream, b"X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")
        },
        alone: Bad(Network, ""),
    },
    Liar {
        name: "has one endless header",
        answer: |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
            forever(stream, &[b'x'; 4096])
        },
        alone: Bad(Network, ""),
    },
    Liar {
        name: "says to go on, and on",
        answer: |_, stream| forever(stream, b"HTTP/1.1 100 Continue\r\n\r\n"),
        alone: Bad(Network, ""),
    },
    // Lengths.
    Liar {
        name: "sends without end",
        answer: |_, stream| {
            head(stream, "200 OK", &[])?;
            forever(stream, &[0; 65536])
        },
        alone: Bad(Network, "more than 1200000 bytes"),
    },
    Liar {
        name: "sends chunks without end",
        answer: |_, stream| {
            head(stream, "200 OK", &[("Transfer-Encoding", "chunked")])?;
            forever(stream, &[b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n"].concat())
        },
        alone: Bad(Network, "more than 1200000 bytes"),
    },
    Liar {
        name: "sends a chunk of an impossible size",
        answer: |_, stream| {
            head(stream, "200 OK", &[("Transfer-Encoding", "chunked")])?;
            stream.write_all(b"fffffffffffffffff\r\nx")
        },
        alone: Bad(Network, "broke off"),
    },
    Liar {
        name: "says it is longer",
        answer: |_, stream| {
            ok(stream, "1200001")?;
            stream.write_all(&data())
        },
        alone: Bad(Refused, "the server has 1200001 bytes"),
    },
    Liar {
        name: "says it is shorter",
        answer: |_, stream| {
            ok(stream, "1199999")?;
            stream.write_all(&data())
        },
        alone: Bad(Refused, "the server has 1199999 bytes"),
    },
    Liar { name: "says it is empty", answer: |_, stream| ok(stream, "0"), alone: Bad(Refused, "has 0 bytes") },
    Liar { name: "has a negative length", answer: |_, stream| ok(stream, "-1"), alone: Bad(Network, "") },
    Liar {
        name: "has two lengths",
        answer: |_, stream| {
            head(stream, "200 OK", &[("Content-Length", SIZE), ("Content-Length", "1")])?;
            stream.write_all(&data())
        },
        alone: Bad(Network, ""),
    },
    Liar {
        name: "gives no length, and less",
        answer: |_, stream| {
            head(stream, "200 OK", &[])?;
            stream.write_all(&data()[..1000])
        },
        alone: Bad(Network, "ended after 1000 of 1200000"),
    },
    Liar {
        name: "gives no length",
        answer: |_, stream| {
            head(stream, "200 OK", &[])?;
            stream.write_all(&data())
        },
        alone: Good,
    },
    // Ranges: the first answer is truncated, and the second is wrong.
    Liar {
        name: "goes on elsewhere",
        answer: |request, stream| {
            broken(request, stream, |stream| {
                part(stream, "5-1199999/1200000", 1_199_995)?;
                stream.write_all(&data()[5..])
            })
        },
        alone: Bad(Network, "continues at another offset"),
    },
    Liar {
        name: "goes on with a file of another size",
        answer: |request, stream| {
            let from = request.from().unwrap_or(0);
            broken(request, stream, |stream| {
                part(stream, &format!("{from}-1299999/1300000"), 1_300_000 - from)?;
                stream.write_all(&vec![0; 1_300_000 - from])
            })
        },
        alone: Bad(Refused, "the server has 1300000 bytes"),
    },
    Liar {
        name: "goes on with other bytes",
        answer: |request, stream| {
            let from = request.from().unwrap_or(0);
            broken(request, stream, |stream| {
                part(stream, &format!("{from}-1199999/1200000"), 1_200_000 - from)?;
                stream.write_all(&vec![0; 1_200_000 - from])
            })
        },
        // A wrong file from two answers is fetched again as a whole; this server truncates it and continues with other bytes again.
        alone: Bad(Refused, "SHA-512"),
    },
    Liar {
        name: "gives a part and does not say which",
        answer: |request, stream| {
            broken(request, stream, |stream| {
                head(stream, "206 Partial Content", &[("Content-Length", "10")])?;
                stream.write_all(&[0; 10])
            })
        },
        alone: Bad(Network, "continues at another offset"),
    },
    Liar {
        name: "gives a part that was not asked for",
        answer: |_, stream| {
            part(stream, "0-1199999/1200000", 1_200_000)?;
            stream.write_all(&data())
        },
        alone: Bad(Network, "206"),
    },
    Liar {
        name: "cannot go on",
        answer: |request, stream| {
            broken(request, stream, |stream| head(stream, "416 Range Not Satisfiable", &[("Content-Length", "0")]))
        },
        alone: Bad(Network, "cannot continue there"),
    },
    Liar {
        name: "begins anew",
        answer: |request, stream| {
            broken(request, stream, |stream| {
                ok(stream, SIZE)?;
                stream.write_all(&data())
            })
        },
        alone: Good,
    },
    Liar {
        name: "has another file when asked again",
        answer: |request, stream| {
            if request.number == 0 {
                ok(stream, SIZE)?;
                return stream.write_all(&vec![1; 600_000]);
            }
            honest(request, stream, &data())
        },
        alone: Good,
    },
    // Other content than requested.
    Liar {
        name: "has a login page",
        answer: |_, stream| {
            head(stream, "200 OK", &[("Content-Type", "text/html"), ("Content-Length", "6")])?;
            stream.write_all(b"<html>")
        },
        alone: Bad(Network, "web page"),
    },
    Liar {
        name: "has a login page of the right size and no type",
        answer: |_, stream| {
            ok(stream, SIZE)?;
            stream.write_all(&b"<html>".repeat(200_000))
        },
        alone: Bad(Refused, "SHA-512"),
    },
    Liar {
        name: "compresses",
        answer: |_, stream| head(stream, "200 OK", &[("Content-Encoding", "gzip"), ("Content-Length", SIZE)]),
        alone: Bad(Network, "compresses"),
    },
    Liar {
        name: "has one bit wrong",
        answer: |request, stream| {
            let mut data = data();
            data[600_000] ^= 4;
            honest(request, stream, &data)
        },
        alone: Bad(Refused, "SHA-512"),
    },
    // Redirects.
    Liar { name: "redirects in a circle", answer: |_, stream| moved(stream, "/f"), alone: Bad(Network, "more than 5") },
    Liar {
        name: "redirects on and on",
        answer: |request, stream| moved(stream, &format!("/{}", request.number)),
        alone: Bad(Network, "more than 5"),
    },
    Liar {
        name: "redirects to a file",
        answer: |_, stream| moved(stream, "file:///etc/passwd"),
        alone: Bad(Network, ""),
    },
    Liar { name: "redirects to nothing", answer: |_, stream| moved(stream, ""), alone: Bad(Network, "") },
    Liar {
        name: "redirects to a closed port",
        answer: |_, stream| moved(stream, "http://127.0.0.1:1/"),
        alone: Bad(Network, "cannot connect"),
    },
    Liar {
        name: "redirects without a place",
        answer: |_, stream| head(stream, "302 Found", &[("Content-Length", "0")]),
        alone: Bad(Network, "302"),
    },
    // Statuses.
    Liar {
        name: "does not have it",
        answer: |_, stream| status(stream, "404 Not Found", ""),
        alone: Bad(Network, "404"),
    },
    Liar { name: "forbids it", answer: |_, stream| status(stream, "403 Forbidden", ""), alone: Bad(Network, "403") },
    Liar { name: "is broken", answer: |_, stream| status(stream, "500 Oops", ""), alone: Bad(Network, "500") },
    Liar {
        name: "has nothing to say",
        answer: |_, stream| status(stream, "204 No Content", ""),
        alone: Bad(Network, "204"),
    },
    Liar {
        name: "is busy once",
        answer: |request, stream| match request.number {
            0 => status(stream, "503 Service Unavailable", "0"),
            _ => honest(request, stream, &data()),
        },
        alone: Good,
    },
    Liar {
        name: "is busy for a second",
        answer: |request, stream| match request.number {
            0 => status(stream, "429 Too Many Requests", "1"),
            _ => honest(request, stream, &data()),
        },
        alone: Good,
    },
    Liar {
        name: "is busy till tomorrow",
        answer: |_, stream| status(stream, "503 Service Unavailable", "86400"),
        alone: Bad(Network, "503"),
    },
    Liar {
        name: "is busy until a date",
        answer: |_, stream| status(stream, "503 Service Unavailable", "Fri, 31 Dec 9999 23:59:59 GMT"),
        alone: Bad(Network, "503"),
    },
    Liar {
        name: "is busy beyond all numbers",
        answer: |_, stream| status(stream, "503 Service Unavailable", "99999999999999999999999"),
        alone: Bad(Network, "503"),
    },
];

fn ok(stream: &mut std::net::TcpStream, length: &str) -> std::io::Result<()> {
    head(stream, "200 OK", &[("Content-Length", length)])
}

fn part(stream: &mut std::net::TcpStream, range: &str, length: usize) -> std::io::Result<()> {
    let range = format!("bytes {range}");
    head(stream, "206 Partial Content", &[("Content-Range", &range), ("Content-Length", &length.to_string())])
}

fn moved(stream: &mut std::net::TcpStream, place: &str) -> std::io::Result<()> {
    head(stream, "302 Found", &[("Location", place), ("Content-Length", "0")])
}

fn status(stream: &mut std::net::TcpStream, status: &str, after: &str) -> std::io::Result<()> {
    match after {
        "" => head(stream, status, &[("Content-Length", "0")]),
        _ => head(stream, status, &[("Retry-After", after), ("Content-Length", "0")]),
    }
}

/// Truncates an answer from the beginning of the file; `lie` answers requests for other ranges.
fn broken(
    request: &Request,
    stream: &mut std::net::TcpStream,
    lie: impl Fn(&mut std::net::TcpStream) -> std::io::Result<()>,
) -> std::io::Result<()> {
    if request.from().is_some() {
        return lie(stream);
    }
    ok(stream, SIZE)?;
    stream.write_all(&data()[..300_000])
}

fn pause() -> std::io::Result<()> {
    std::thread::sleep(Duration::from_secs(3600));
    Ok(())
}

fn drip(stream: &mut std::net::TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn forever(stream: &mut std::net::TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}

/// Closes the connection so that the client gets an error.
fn reset(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO))?;
    // The owner of the descriptor would shut the connection down, which is not an error.
    Err(std::io::ErrorKind::ConnectionReset.into())
}

fn judge(liar: &Liar) -> Result<(), String> {
    let server = Server::start(liar.answer);
    let case = Case::new();
    match (&liar.alone, case.get(&[&server])) {
        (Good, Ok(_)) => {}
        (Bad(kind, why), Err(error)) => {
            let text = format!("{error} {}", error.details().unwrap_or_default());
            if error.kind() != *kind || !text.contains(why) || error.hint().is_none() {
                return Err(format!("{kind:?} {why}: {:?} {text}", error.kind()));
            }
            if text.contains(char::is_control) {
                return Err(format!("control characters: {text:?}"));
            }
        }
        (_, Ok(_)) => return Err("accepted".to_owned()),
        (_, Err(error)) => return Err(format!("not accepted: {error:?}")),
    }
    // Its partial download does not damage that of an honest mirror, and a foreign partial download does not change the outcome.
    case.get(&[&Server::start(liar.answer), &good()]).map_err(|error| format!("before an honest one: {error:?}"))?;
    with_part(&data()[..1000])
        .get(&[&Server::start(liar.answer), &good()])
        .map_err(|error| format!("with a part before an honest one: {error:?}"))?;
    with_part(&[7; 1000])
        .get(&[&Server::start(liar.answer), &good()])
        .map_err(|error| format!("with noise before an honest one: {error:?}"))?;
    Ok(())
}

#[test]
fn misbehaving_servers_alone_and_before_an_honest_mirror() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    // Run them in parallel: they mostly wait.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(liar) = LIARS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(error) = judge(liar) {
                        wrong.lock().unwrap().push(format!("{}: {error}", liar.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
