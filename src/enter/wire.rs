//! The control socket between the builder and a sandbox: reports as lines of JSON. A report may carry a descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};

use super::parent::unexpected;
use super::{Observer, Report};
use crate::base::error::{Context, Error, Kind, Result};
use crate::os::process::Exit;

/// Longest report in bytes.
const MAX: usize = 1 << 20;

/// Sends one report. Errors do not matter: if the builder is gone, this process ends as well.
pub(super) fn send(channel: &UnixStream, report: &Report, fd: Option<BorrowedFd<'_>>) {
    let Ok(mut line) = serde_json::to_vec(report) else { return };
    line.push(b'\n');
    let mut rest = &line[..];
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    while !rest.is_empty() {
        match sendmsg(channel, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        // Once is enough.
        ancillary.clear();
    }
}

/// Waits for the next report, and takes the descriptor that it carries. Reads no byte behind it.
///
/// # Errors
/// [`Kind::System`] if the sandbox has ended or sends something else.
pub(super) fn receive(channel: &UnixStream) -> Result<(Report, Option<OwnedFd>)> {
    let (mut line, mut carried) = (Vec::new(), None);
    loop {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let count = match recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags) {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::system("reading from the sandbox").with_source(errno)),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                carried = fds.last().or(carried);
            }
        }
        if count == 0 || line.len() == MAX {
            return Err(Error::system("the sandbox ended before its command was started"));
        }
        if byte[0] == b'\n' {
            let report = serde_json::from_slice(&line).context(Kind::System, || "reading a report of the sandbox")?;
            return Ok((report, carried));
        }
        line.push(byte[0]);
    }
}

/// The reports that a sandbox sends while its command runs.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// The beginning of a report.
    pending: Vec<u8>,
    /// The end of the command.
    pub(super) ended: Option<Exit>,
    /// The reason why the command was not started.
    pub(super) failed: Option<Error>,
}

impl Running {
    /// Takes the reports that have arrived by now. Those about other processes go to the observer.
    pub(super) fn take(&mut self, channel: &UnixStream, mut observer: Option<&mut dyn Observer>) {
        let mut buffer = vec![0; 8192];
        while let Ok((count @ 1.., _)) = recv(channel, &mut buffer[..], RecvFlags::DONTWAIT) {
            self.pending.extend_from_slice(&buffer[..count]);
        }
        while let Some(length) = self.pending.iter().position(|&byte| byte == b'\n') {
            match serde_json::from_slice(&self.pending[..length]) {
                Ok(Report::Ended(exit)) => self.ended = Some(exit),
                Ok(failed @ Report::Failed { .. }) => self.failed = Some(unexpected(failed)),
                Ok(report) => _ = observer.as_mut().map(|observer| tell(report, *observer)),
                Err(_) => {}
            }
            self.pending.drain(..=length);
        }
    }
}

/// Passes a report on.
fn tell(report: Report, observer: &mut dyn Observer) {
    match report {
        Report::Left(process) => observer.left(&process),
        Report::Daemon(failure) => observer.daemon_failed(failure),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_report_carries_a_descriptor_and_the_next_one_waits() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send(&one, &Report::Started, Some(write.as_fd()));
        send(&one, &Report::Ended(Exit::Signal(9)), None);
        drop(write);
        let (report, fd) = receive(&other).unwrap();
        assert!(matches!(report, Report::Started), "{report:?}");
        let mut file = std::fs::File::from(fd.unwrap());
        file.write_all(b"x").unwrap();
        drop(file);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        let mut running = Running::default();
        running.take(&other, None);
        assert_eq!(running.ended, Some(Exit::Signal(9)));
        drop(one);
        assert!(receive(&other).is_err());
    }
}
