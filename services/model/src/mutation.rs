//! Rules that a model can break on purpose.
//!
//! A model that finds nothing proves little unless it is known that it would
//! have found something. Each mutation plants one fault into the wiring around
//! core's functions, and a test expects a counterexample.

/// One list is both the faults and all of them, so that none is forgotten.
macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One rule that is not kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mutation {
            $($(#[$doc])* $name,)+
        }

        impl Mutation {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

mutations! {
    /// A write is acknowledged when one member less than W has it.
    AcknowledgeEarly,
    /// An incomplete locate that found nothing is answered as absent.
    AbsentWhenIncomplete,
    /// A version that is not settled is answered without being written back.
    NoWriteBack,
    /// A member takes what builds on an answer of any age and any run, whatever
    /// earlier runs promised.
    AcceptOldStamp,
    /// A member answers a question of any age.
    AnswerOldQuestion,
    /// A member that answers "too late" is asked once more in the same round.
    AskAgainInTheRound,
    /// A restart forgets the floor.
    DropFloor,
    /// "Superseded" acknowledges a conditional write.
    CountSuperseded,
    /// A promise does not stand in the way of a write-back.
    WriteBackIgnoresPromises,
    /// What was promised and is remembered no more stands in the way of nothing.
    ForgetPromised,
    /// A member takes writes below what its earlier runs have promised.
    WriteBelowEarlierRuns,
    /// A conditional write asks for no promise.
    NoPromise,
    /// A condition is judged on what lies above the version that was promised.
    JudgeAboveBallot,
    /// A write whose outcome is unknown is made again under a new version.
    RetryUnknown,
    /// What is settled under a promise keeps the version under which it was found.
    SettleBelowBallot,
    /// A delete that finds a tombstone writes nothing, settled or not.
    TrustLoneTombstone,
    /// A copy that cannot be read is answered as no copy.
    UnreadableIsAbsent,
    /// A copy is dropped as soon as the others confirmed theirs.
    DropAtOnce,
    /// A copy is forgotten as soon as a newer version is settled.
    ForgetAtOnce,
    /// Others say that they have a copy, and do not keep it.
    NoPins,
    /// A member that lets go of a copy confirms it to others all the same.
    PinWhileLettingGo,
    /// A member that has just started lets go of copies.
    LetGoWhenYoung,
    /// Members forget a tombstone without having agreed to.
    CollectUnasked,
    /// A member forgets a tombstone as soon as it agrees to.
    CollectInOneRound,
    /// A member agrees to forget a tombstone, whatever it holds.
    AgreeToAnything,
    /// A member agrees to forget a tombstone, and does not raise its floor.
    CollectWithoutFloor,
    /// A member agrees to forget a tombstone, and still takes what is older.
    CollectWithoutBar,
    /// Answers of a member with another roster are believed as they are.
    IgnoreDigest,
    /// A round is judged by the roster at its end, not by the one with which it
    /// began.
    JudgeByLastRoster,
    /// A newcomer takes data before its join counts.
    NoAdmission,
    /// A member that retired is taken back.
    ReviveRetired,
    /// What a draining member accepted counts.
    CountDraining,
    /// A drain counts as soon as one member knows of it.
    DrainUnnoticed,
    /// A lost member retires without repair.
    RetireWithoutPass,
    /// A member that drains retires as soon as it is empty, and what was let in
    /// before lands afterwards.
    RetireAtOnce,
    /// The same, and what lands there counts.
    RetireAtOnceAndCount,
    /// Reads count on more copies before everything has them.
    ReadQuorumBeforePass,
    /// Writes make fewer copies before reads count on fewer.
    WriteQuorumDownFirst,
    /// A policy counts by its own quorum, not by that of the one before it.
    NoticeByNewPolicy,
    /// A read settles what it found by the quorum of reads alone.
    SettleByReadQuorum,
    /// What members accepted that are no voters counts.
    CountAnybody,
    /// A version that W members have, voters or not, is answered as settled.
    SettleOnAnybody,
    /// W voters answer for names that nobody has brought to them.
    ReadVotersAtOnce,
    /// A pass is content with W copies anywhere.
    PassOnAnybody,
    /// A copy is let go of while too few of those that are relied on vote.
    RelyOnAnybody,
    /// An electorate that rises is looked after at once.
    RiseAtOnce,
    /// An electorate that falls is gone at once.
    FallAtOnce,
    /// A fall counts as soon as one member knows of it.
    FallUnnoticed,
}
