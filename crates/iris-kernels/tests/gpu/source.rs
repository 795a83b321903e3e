//! Sources that do not compile.

use iris_kernels::device::{nvrtc::Nvrtc, sources};
use iris_testkit::device::Gpus;

/// A kernel of the user's own that does not compile is shown by its own file and line.
#[test]
fn a_source_that_does_not_compile_is_shown_by_file_and_line() {
    let Some(gpus) = Gpus::take("a_source_that_does_not_compile", 1) else {
        return;
    };
    let user = "#include \"iris/operation.h\"\n\nint wrong = no_such_thing;\n";
    let text = sources::amalgamate("user.hip", user);
    let error = Nvrtc::load()
        .unwrap()
        .compile("user.hip", &text, gpus.architecture(), &["IRIS_DTYPE=f32"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("user.hip(3)") && error.contains("no_such_thing"),
        "{error}"
    );
}
