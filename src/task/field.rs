//! The fields of a task that a client may see, each with the names under which it is read and sent.

/// A visible field. The discriminant indexes `Task`'s values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    Title,
    Status,
    Creator,
    CreatedBy,
    OrgId,
    IsPrivate,
    CreatedAt,
    UpdatedAt,
    Repo,
    IssueNumber,
    IssueUrl,
    GithubBranch,
    PrNumber,
    PrUrl,
    PrTitle,
    PrState,
    MergeCommitSha,
    MergedAt,
    ErrorMessage,
    Questions,
    ClarificationAnswers,
}

impl Field {
    pub const COUNT: usize = 21;

    /// All fields, in the order of the view.
    pub const ALL: [Field; Self::COUNT] = [
        Field::Title,
        Field::Status,
        Field::Creator,
        Field::CreatedBy,
        Field::OrgId,
        Field::IsPrivate,
        Field::CreatedAt,
        Field::UpdatedAt,
        Field::Repo,
        Field::IssueNumber,
        Field::IssueUrl,
        Field::GithubBranch,
        Field::PrNumber,
        Field::PrUrl,
        Field::PrTitle,
        Field::PrState,
        Field::MergeCommitSha,
        Field::MergedAt,
        Field::ErrorMessage,
        Field::Questions,
        Field::ClarificationAnswers,
    ];

    /// The names under which a document may have the field. The first one with a value other than null counts.
    pub fn document_names(self) -> &'static [&'static str] {
        match self {
            Field::Title => &["title", "llmSummary"],
            Field::Status => &["status"],
            Field::Creator => &["creatorName", "createdBy"],
            Field::CreatedBy => &["createdBy"],
            Field::OrgId => &["orgId"],
            Field::IsPrivate => &["isPrivate"],
            Field::CreatedAt => &["createdAt"],
            Field::UpdatedAt => &["updatedAt"],
            Field::Repo => &["repo"],
            Field::IssueNumber => &["issueNumber", "githubIssueNumber"],
            Field::IssueUrl => &["issueUrl", "githubIssueUrl"],
            Field::GithubBranch => &["githubBranch"],
            Field::PrNumber => &["prNumber", "githubPrNumber"],
            Field::PrUrl => &["prUrl", "githubPrUrl"],
            Field::PrTitle => &["prTitle"],
            Field::PrState => &["prState"],
            Field::MergeCommitSha => &["mergeCommitSha"],
            Field::MergedAt => &["mergedAt"],
            Field::ErrorMessage => &["errorMessage"],
            Field::Questions => &["questions", "clarificationQuestions"],
            Field::ClarificationAnswers => &["clarificationAnswers"],
        }
    }

    /// The names under which a client receives the field.
    pub fn sent_names(self) -> &'static [&'static str] {
        match self {
            Field::Title => &["title"],
            Field::Creator => &["creator"],
            Field::Questions => &["questions"],
            field => field.document_names(),
        }
    }

    /// The name under which the field is written. `has` is true for the names that have a value in the document.
    ///
    /// The first name wins if a document has values under both, because the first name is also the one that is read.
    pub fn written_name(self, has: impl Fn(&str) -> bool) -> &'static str {
        let names: &'static [&'static str] = match self {
            Field::Creator => &["creatorName"],
            field => field.document_names(),
        };
        names
            .iter()
            .find(|name| has(name))
            .or_else(|| names.iter().find(|name| name.starts_with("github")))
            .unwrap_or(&names[0])
    }

    /// Returns whether the view for lists has the field.
    pub fn in_summary(self) -> bool {
        !matches!(self, Field::Questions | Field::ClarificationAnswers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_field_is_its_discriminant() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
        }
    }
}
