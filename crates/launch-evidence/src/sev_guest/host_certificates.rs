//! The request for the table of certificates that the host passes with a report, `SNP_GET_EXT_REPORT` of the guest driver
//! (Linux, `include/uapi/linux/sev-guest.h`). The bytes go to the bounded parser of tables as they came.
//!
//! The `sev` crate has the same request, but follows the offsets in the host's table by raw pointers without bounds, and the
//! host is the adversary here.
#![expect(
    unsafe_code,
    reason = "a request of the driver hands addresses to the kernel; each says why it is sound here"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// The most that the driver hands out, in bytes (`SEV_FW_BLOB_MAX_SIZE`).
pub(super) const TABLE_MAX: usize = 16 * 1024;

/// Asks for the table: [`TABLE_MAX`] bytes, zeros where the host passes none.
pub(super) fn table(device: &File) -> io::Result<Vec<u8>> {
    request(device.as_fd(), vec![0; TABLE_MAX])
}

fn request(device: impl AsFd, mut table: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut asked = ExtendedRequest::new(&mut table)?;
    let mut report = Report([0; 4000]);
    let mut message = Message {
        version: 1,
        request: std::ptr::from_mut(&mut asked).expose_provenance() as u64,
        response: std::ptr::from_mut(&mut report).expose_provenance() as u64,
        error: 0,
    };
    // SAFETY: the opcode is the driver's for `Message`. It reads `asked`, and writes the members of `asked` and `message`
    // and at most the length of `report` and `table`, all of which outlive the call and are used by nothing else in it.
    let done = unsafe { ioctl(device, Updater::<GET_EXTENDED_REPORT, Message>::new(&mut message)) };
    // The host has more than the driver hands out: since Linux 5.19 no error, the table is left as it was.
    let is_too_small = message.error >> 32 == TABLE_TOO_SMALL;
    match done {
        _ if is_too_small => Err(io::Error::other("the host's certificates are more than the driver hands out")),
        Ok(()) => Ok(table),
        Err(errno) => Err(errno.into()),
    }
}

/// `SNP_GET_EXT_REPORT`.
const GET_EXTENDED_REPORT: Opcode = opcode::read_write::<Message>(b'S', 2);
/// `SNP_GUEST_VMM_ERR_INVALID_LEN`, in the upper half of the error.
const TABLE_TOO_SMALL: u64 = 1;

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct Message {
    version: u8,
    request: u64,
    response: u64,
    error: u64,
}

/// `struct snp_ext_report_req`, in which stands a `struct snp_report_req`.
#[repr(C)]
struct ExtendedRequest {
    report_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
    table: u64,
    table_len: u32,
}

impl ExtendedRequest {
    /// The report that comes with the table is not used: nothing is bound to it.
    fn new(table: &mut [u8]) -> io::Result<Self> {
        let table_len = u32::try_from(table.len()).map_err(io::Error::other)?;
        let table = table.as_mut_ptr().expose_provenance() as u64;
        Ok(Self { report_data: [0; 64], vmpl: super::VMPL, reserved: [0; 28], table, table_len })
    }
}

/// `struct snp_report_resp`.
#[repr(C)]
struct Report([u8; 4000]);

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn the_request_is_laid_out_as_the_kernels_header_has_it() {
        assert_eq!(GET_EXTENDED_REPORT, 0xC020_5302);
        assert_eq!((size_of::<Message>(), size_of::<ExtendedRequest>(), size_of::<Report>()), (32, 112, 4000));
        assert_eq!(
            [offset_of!(Message, request), offset_of!(Message, response), offset_of!(Message, error)],
            [8, 16, 24]
        );
        assert_eq!([offset_of!(ExtendedRequest, vmpl), offset_of!(ExtendedRequest, table)], [64, 96]);
        assert_eq!(offset_of!(ExtendedRequest, table_len), 104);
    }

    #[test]
    fn what_is_no_guest_device_refuses_the_request() {
        let error = table(&File::open("/dev/null").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTTY.raw_os_error()));
    }
}
