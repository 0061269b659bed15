//! Protocols with a mistake built in. The simulator must find every one of them, or it proves nothing.

/// At most one mistake a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The protocol as it is.
    None,
    /// Readers are told of a checkpoint when it begins, not when it is durable.
    ShownBeforeDurable,
    /// The checkpoint's bytes are not fsynced before it is renamed into place.
    CheckpointNotSynced,
    /// The directory is not fsynced after the rename.
    DirectoryNotSynced,
    /// … nor when a store is opened that a kill left so.
    DirectoryNotSyncedAtOpening,
    /// The data that a checkpoint covers is not fsynced before it.
    DataNotSynced,
    /// What lies beyond the checkpoint is not cut off at a restart.
    LogNotTruncated,
    /// The checkpoint's offset is where the reader is, not what the state has seen.
    OffsetAheadOfState,
    /// Rows that are read while a checkpoint is made are taken to be covered by it.
    RowsReadMeanwhileForgotten,
    /// … and readers are told so.
    RowsReadMeanwhileShown,
    /// A counter is missing in the lane's snapshot.
    CounterNotInSnapshot,
    /// A tick is given to the lane but not recorded.
    TickNotRecorded,
    /// A lane that comes back to a process goes on from what that process remembers.
    TakeoverFromMemory,
    /// Manifests are put over those that are there, whoever wrote them.
    NoFence,
    /// After a put, nobody looks whether the number was free only because it had been deleted.
    NewerManifestsNotLookedFor,
    /// Objects that no manifest refers to yet are deleted, whoever put them.
    PartsOfOthersDeleted,
    /// The manifest is put before the parts that it refers to.
    ManifestBeforeParts,
    /// The sink's cursor is committed before the transaction.
    CursorBeforeTransaction,
    /// The sink's cursor is committed after the transaction.
    CursorAfterTransaction,
    /// A lost answer is taken for a failure: the batch is sent again in a new transaction.
    LostAnswerSentAgain,
    /// The cursor is read first, then older writers are fenced.
    CursorReadBeforeFencing,
    /// A plain sink saves its cursor before it delivers.
    PlainCursorFirst,
    /// Of several records among which some are refused, the first is taken for the refused one.
    FirstOfRefusedSetAside,
    /// The cursor passes a refused record before its refusal is kept.
    RefusalKeptAfterCursor,
    /// The archive's cursor does not say which range is being written.
    NotAnnounced,
    /// … or who opens the archive does not look.
    AnnouncedRangeForgotten,
    /// A checkpoint is anchored that is not durable yet.
    AnchorNotDurable,
    /// … because it was seen beside its writer, who had not fsynced the directory yet.
    AnchorOfRenamed,
    /// A head that a reorganisation lowered is not believed.
    ReorgIgnored,
    /// The lock is let go before the last checkpoint.
    ReleasedBeforeLastCheckpoint,
    /// A lane that was carried over to another pipeline makes no checkpoint of it before it goes on.
    BoundarySkipped,
    /// Lanes go over to another pipeline wherever they are.
    LanesNotHeld,
    /// The change of the pipeline is not recorded.
    ChangeNotRecorded,
    /// A lane of another pipeline is restored as if it were of this one.
    RestoredUnderAnother,
    /// The state of a step whose definition has changed is kept.
    StateOfChangedStepKept,
    /// A process with an older file takes lanes back that have gone on.
    OlderFileTakesBack,
    /// A reload that was given up is run all the same.
    FailedReloadRun,
    /// A reload with the file that a process runs already takes a new number.
    UnchangedFileIsNew,
    /// A number is given to a second version.
    VersionPutOver,
    /// A number is believed that the disk may forget.
    VersionSeenBeforeDurable,
}

impl Bug {
    /// All mistakes.
    pub const ALL: [Bug; 39] = [
        Bug::ShownBeforeDurable,
        Bug::CheckpointNotSynced,
        Bug::DirectoryNotSynced,
        Bug::DirectoryNotSyncedAtOpening,
        Bug::DataNotSynced,
        Bug::LogNotTruncated,
        Bug::OffsetAheadOfState,
        Bug::RowsReadMeanwhileForgotten,
        Bug::RowsReadMeanwhileShown,
        Bug::CounterNotInSnapshot,
        Bug::TickNotRecorded,
        Bug::TakeoverFromMemory,
        Bug::NoFence,
        Bug::NewerManifestsNotLookedFor,
        Bug::PartsOfOthersDeleted,
        Bug::ManifestBeforeParts,
        Bug::CursorBeforeTransaction,
        Bug::CursorAfterTransaction,
        Bug::LostAnswerSentAgain,
        Bug::CursorReadBeforeFencing,
        Bug::PlainCursorFirst,
        Bug::FirstOfRefusedSetAside,
        Bug::RefusalKeptAfterCursor,
        Bug::NotAnnounced,
        Bug::AnnouncedRangeForgotten,
        Bug::AnchorNotDurable,
        Bug::AnchorOfRenamed,
        Bug::ReorgIgnored,
        Bug::ReleasedBeforeLastCheckpoint,
        Bug::BoundarySkipped,
        Bug::LanesNotHeld,
        Bug::ChangeNotRecorded,
        Bug::RestoredUnderAnother,
        Bug::StateOfChangedStepKept,
        Bug::OlderFileTakesBack,
        Bug::FailedReloadRun,
        Bug::UnchangedFileIsNew,
        Bug::VersionPutOver,
        Bug::VersionSeenBeforeDurable,
    ];
}
