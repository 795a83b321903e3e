//! Text that a C library gives.

use std::ffi::{CStr, c_char};

/// A string of a library's, where there is one.
///
/// # Safety
/// The pointer is null, or to a string with its end.
pub(crate) unsafe fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the string has an end, by the caller's word.
    let text = unsafe { CStr::from_ptr(pointer) };
    Some(text.to_string_lossy().into_owned())
}
