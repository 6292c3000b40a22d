//! What is to be done, and what cannot be.

use std::collections::BTreeMap;

use super::GrowError;
use super::objects::{Claim, StatefulSet};
use super::quantity::Quantity;

/// Whether the StatefulSet must be made anew for this size. One that is being
/// deleted already has to be waited for, whatever it asks for.
pub(super) fn is_to_be_replaced(
    found: &StatefulSet,
    claim: &str,
    size: &Quantity,
) -> Result<bool, GrowError> {
    let statefulset = || found.metadata.name.clone();
    let mut templates = found.spec.volume_claim_templates.iter().flatten();
    let template = templates.find(|template| template.metadata.name == claim);
    let Some(now) = template.and_then(Claim::request) else {
        return Err(GrowError::NoTemplate { statefulset: statefulset(), claim: claim.to_owned() });
    };
    if size < now {
        let (now, size) = (now.clone(), size.clone());
        return Err(GrowError::Smaller { statefulset: statefulset(), now, size });
    }
    Ok(now < size || found.metadata.deletion_timestamp.is_some())
}

/// The storage classes of claims that are to grow, each with one of its claims.
pub(super) fn classes_of(claims: &[Claim]) -> Result<BTreeMap<&str, &str>, GrowError> {
    let mut classes = BTreeMap::new();
    for claim in claims {
        let name = || claim.metadata.name.clone();
        if claim.status.phase.as_deref() != Some("Bound") {
            let phase = claim.status.phase.clone().unwrap_or_else(|| "new".to_owned());
            return Err(GrowError::Unbound { claim: name(), phase });
        }
        let class = claim.spec.storage_class_name.as_deref().filter(|class| !class.is_empty());
        let Some(class) = class else { return Err(GrowError::NoClass { claim: name() }) };
        classes.entry(class).or_insert(claim.metadata.name.as_str());
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(changed: Value) -> Claim {
        let mut claim = json!({
            "metadata": { "name": "data-store-0" },
            "spec": {
                "storageClassName": "fast",
                "resources": { "requests": { "storage": "10Gi" } },
            },
            "status": { "phase": "Bound" },
        });
        for (name, value) in changed.as_object().expect("an object") {
            claim[name] = value.clone();
        }
        serde_json::from_value(claim).expect("a claim")
    }

    #[test]
    fn a_claim_belongs_to_one_statefulset() {
        for (name, expected) in [
            ("data-store-0", Some(0)),
            ("data-store-12", Some(12)),
            ("data-store-1-0", None),
            ("data-store-01", None),
            ("data-store-+1", None),
            ("data-store-", None),
            ("data-store", None),
            ("other-data-store-0", None),
            ("data-store-0-copy", None),
        ] {
            let named = claim(json!({ "metadata": { "name": name } }));
            assert_eq!(named.ordinal("data", "store"), expected, "{name}");
        }
    }

    #[test]
    fn a_claim_that_cannot_grow_is_refused() {
        let good = [claim(json!({}))];
        let classes = classes_of(&good).expect("they can grow");
        assert_eq!(classes.into_iter().collect::<Vec<_>>(), [("fast", "data-store-0")]);
        let pending = [claim(json!({ "status": { "phase": "Pending" } }))];
        assert!(classes_of(&pending).expect_err("not bound").to_string().contains("is Pending"));
        let fresh = [claim(json!({ "status": {} }))];
        assert!(classes_of(&fresh).is_err());
        let by_hand = [claim(json!({ "spec": { "storageClassName": "" } }))];
        let refused = classes_of(&by_hand).expect_err("no class");
        assert!(refused.to_string().contains("no storage class"), "{refused}");
    }
}
