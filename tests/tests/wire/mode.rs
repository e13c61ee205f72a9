//! The ways in which the router may forward.

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    /// Lines at the top of the daemon's config. A lease that outlasts the test, so that which packets go fast does not
    /// depend on how fast the test is.
    pub(crate) config: &'static str,
    /// Whether there are packets that do not pass through the kernel's network stack.
    pub(crate) is_fast: bool,
    /// Whether it can do with packets that are not yet as they will be on a wire.
    pub(crate) takes_offloads: bool,
}

/// The kernel does all of it.
pub(crate) const TRUTH: Mode =
    Mode { name: "off", config: "acceleration = \"off\"", is_fast: false, takes_offloads: true };

const TC: Mode = Mode {
    name: "tc",
    config: "acceleration = \"tc\"\n[fast_path]\nlease = \"1m\"",
    is_fast: true,
    takes_offloads: true,
};

const XDP: Mode = Mode {
    name: "xdp",
    config: "acceleration = \"xdp\"\n[fast_path]\nlease = \"1m\"",
    is_fast: true,
    takes_offloads: false,
};

/// Those that are compared with it.
pub(crate) const MODES: &[Mode] = &[TC, XDP];
