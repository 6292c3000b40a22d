//! Kinds of faults.

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL of a data server, and a start a while later.
    Kill,
    /// SIGSTOP of a data server.
    Pause,
    /// SIGTERM of a data server, and a start.
    Restart,
    /// Nobody reaches a data server, nor does it reach the broker. What it asks of
    /// other data servers over HTTP still gets there.
    Isolate,
    /// No byte between a data server and the broker.
    CutBroker,
    /// A data server loses its disk.
    Wipe,
    /// SIGKILL of an api.
    KillApi,
    /// SIGSTOP of an api.
    PauseApi,
    /// The broker dies.
    KillBroker,
    /// The broker hangs.
    PauseBroker,
    /// The disk of a data server is full.
    Fill,
    /// The wall clocks of a data server and an api are wrong by minutes, and jump
    /// back.
    Skew,
    /// A data server more.
    Add,
    /// A data server less: drained, and removed when it has retired.
    Drain,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::Pause,
        Self::Restart,
        Self::Isolate,
        Self::CutBroker,
        Self::Wipe,
        Self::KillApi,
        Self::PauseApi,
        Self::KillBroker,
        Self::PauseBroker,
        Self::Fill,
        Self::Skew,
        Self::Add,
        Self::Drain,
    ];

    /// Whether it goes on while others come and go.
    pub(super) fn lasts(self) -> bool {
        matches!(self, Self::Fill | Self::Skew | Self::Add | Self::Drain)
    }
}
