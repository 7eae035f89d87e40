//! The schema files of the built-in types, which are part of the program.

/// The name and the text of each file in `schemas/activity`. A test compares the list with the folder.
pub(super) const FILES: [(&str, &str); 46] = [
    ("agent.completed.json", include_str!("../../../schemas/activity/agent.completed.json")),
    ("agent.failed.json", include_str!("../../../schemas/activity/agent.failed.json")),
    ("agent.message.json", include_str!("../../../schemas/activity/agent.message.json")),
    ("agent.started.json", include_str!("../../../schemas/activity/agent.started.json")),
    ("agent.stopped.json", include_str!("../../../schemas/activity/agent.stopped.json")),
    ("agent.updated.json", include_str!("../../../schemas/activity/agent.updated.json")),
    ("agent_alert.json", include_str!("../../../schemas/activity/agent_alert.json")),
    ("artifact.changed.json", include_str!("../../../schemas/activity/artifact.changed.json")),
    ("autonomous.iteration.json", include_str!("../../../schemas/activity/autonomous.iteration.json")),
    ("autonomous.started.json", include_str!("../../../schemas/activity/autonomous.started.json")),
    ("autonomous.stopped.json", include_str!("../../../schemas/activity/autonomous.stopped.json")),
    ("batch-end.json", include_str!("../../../schemas/activity/batch-end.json")),
    ("batch-start.json", include_str!("../../../schemas/activity/batch-start.json")),
    ("command-end.json", include_str!("../../../schemas/activity/command-end.json")),
    ("command-progress.json", include_str!("../../../schemas/activity/command-progress.json")),
    ("command-start.json", include_str!("../../../schemas/activity/command-start.json")),
    ("context-complete.json", include_str!("../../../schemas/activity/context-complete.json")),
    ("context-create.json", include_str!("../../../schemas/activity/context-create.json")),
    ("context-refresh.json", include_str!("../../../schemas/activity/context-refresh.json")),
    ("cycle-end.json", include_str!("../../../schemas/activity/cycle-end.json")),
    ("cycle-start.json", include_str!("../../../schemas/activity/cycle-start.json")),
    ("error.json", include_str!("../../../schemas/activity/error.json")),
    ("hook.json", include_str!("../../../schemas/activity/hook.json")),
    ("log.line.json", include_str!("../../../schemas/activity/log.line.json")),
    ("mcp.server_connected.json", include_str!("../../../schemas/activity/mcp.server_connected.json")),
    ("mcp.server_disconnected.json", include_str!("../../../schemas/activity/mcp.server_disconnected.json")),
    ("mcp.tool_called.json", include_str!("../../../schemas/activity/mcp.tool_called.json")),
    ("memory.deleted.json", include_str!("../../../schemas/activity/memory.deleted.json")),
    ("memory.updated.json", include_str!("../../../schemas/activity/memory.updated.json")),
    ("quality.reported.json", include_str!("../../../schemas/activity/quality.reported.json")),
    ("session.ended.json", include_str!("../../../schemas/activity/session.ended.json")),
    ("session.message.json", include_str!("../../../schemas/activity/session.message.json")),
    ("session.started.json", include_str!("../../../schemas/activity/session.started.json")),
    ("session.updated.json", include_str!("../../../schemas/activity/session.updated.json")),
    ("stats.updated.json", include_str!("../../../schemas/activity/stats.updated.json")),
    ("story-status.json", include_str!("../../../schemas/activity/story-status.json")),
    ("story_created.json", include_str!("../../../schemas/activity/story_created.json")),
    ("task.closed.json", include_str!("../../../schemas/activity/task.closed.json")),
    ("task.created.json", include_str!("../../../schemas/activity/task.created.json")),
    ("task.expanded.json", include_str!("../../../schemas/activity/task.expanded.json")),
    ("task.updated.json", include_str!("../../../schemas/activity/task.updated.json")),
    ("task_completed.json", include_str!("../../../schemas/activity/task_completed.json")),
    ("worktree.created.json", include_str!("../../../schemas/activity/worktree.created.json")),
    ("worktree.deleted.json", include_str!("../../../schemas/activity/worktree.deleted.json")),
    ("worktree.merged.json", include_str!("../../../schemas/activity/worktree.merged.json")),
    ("worktree.updated.json", include_str!("../../../schemas/activity/worktree.updated.json")),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    #[test]
    fn the_list_has_exactly_the_files_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/activity");
        let on_disk: BTreeMap<String, String> = fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                (name, fs::read_to_string(path).expect("text"))
            })
            .collect();
        let listed: BTreeMap<String, String> =
            FILES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(listed.len(), FILES.len(), "a file is listed twice");
        assert_eq!(listed, on_disk);
    }
}
