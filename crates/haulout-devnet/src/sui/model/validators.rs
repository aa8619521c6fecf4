//! Generated validators: a committee per epoch, and their signatures.

use blst::min_sig::{AggregateSignature, Signature};
use sui_crypto::bls12381::Bls12381PrivateKey;
use sui_sdk_types::{
    Bitmap, Bls12381Signature, CheckpointSummary, ValidatorAggregatedSignature, ValidatorCommittee,
    ValidatorCommitteeMember, hash::Hasher,
};

/// Sum of all voting power, as in Sui.
const TOTAL_STAKE: u64 = 10_000;

/// Every validator changes its key after this many epochs, staggered: so that committees of
/// neighbouring epochs overlap and differ, as real ones do.
const KEY_EPOCHS: u64 = 4;

/// Most validators: about what Sui's mainnet may have.
pub(crate) const VALIDATORS_MAX: usize = 150;

/// The validators of one epoch.
pub(crate) struct Validators {
    keys: Vec<Bls12381PrivateKey>,
    committee: ValidatorCommittee,
}

impl std::fmt::Debug for Validators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Validators").field("committee", &self.committee).finish_non_exhaustive()
    }
}

impl Validators {
    /// The `count` validators of `epoch` on the chain of `seed`. The same every time.
    pub(crate) fn generate(seed: &[u8; 32], epoch: u64, count: usize) -> Self {
        let count = count.clamp(1, VALIDATORS_MAX);
        let mut keys: Vec<_> = (0..count as u64).map(|i| key(seed, epoch, i)).collect();
        // Sui orders a committee by public key.
        keys.sort_by_key(|key| *key.public_key().inner());
        let share = TOTAL_STAKE / count as u64;
        let rest = TOTAL_STAKE - share * count as u64;
        let members = keys.iter().enumerate().map(|(i, key)| ValidatorCommitteeMember {
            public_key: key.public_key(),
            stake: share + if i == 0 { rest } else { 0 },
        });
        let committee = ValidatorCommittee { epoch, members: members.collect() };
        Self { keys, committee }
    }

    /// Their public side.
    pub(crate) fn committee(&self) -> &ValidatorCommittee {
        &self.committee
    }

    /// A quorum's signature. Who signs depends on the checkpoint, as on a real network.
    pub(crate) fn sign(&self, summary: &CheckpointSummary) -> ValidatorAggregatedSignature {
        let count = self.keys.len();
        let quorum = (TOTAL_STAKE - 1) / 3 * 2 + 1;
        let first = (summary.sequence_number % count as u64) as usize;
        let mut signers: Vec<usize> = Vec::new();
        let mut weight = 0;
        for i in (0..count).map(|i| (first + i) % count) {
            if weight >= quorum {
                break;
            }
            weight += self.committee.members[i].stake;
            signers.push(i);
        }
        signers.sort_unstable();
        let signatures: Vec<Signature> = signers
            .iter()
            .map(|&i| self.keys[i].sign_checkpoint_summary(summary).signature)
            .filter_map(|signature| Signature::from_bytes(signature.inner()).ok())
            .collect();
        let refs: Vec<&Signature> = signatures.iter().collect();
        let sum = AggregateSignature::aggregate(&refs, false)
            .map(|sum| sum.to_signature().to_bytes())
            .unwrap_or([0; 48]);
        let bitmap: Bitmap = signers.iter().map(|&i| i as u32).collect();
        let signature = Bls12381Signature::new(sum);
        ValidatorAggregatedSignature { epoch: summary.epoch, signature, bitmap }
    }
}

/// The key that validator `i` has in `epoch`.
#[expect(clippy::expect_used, reason = "a non-zero number below 2^254 is below the group order")]
fn key(seed: &[u8; 32], epoch: u64, i: u64) -> Bls12381PrivateKey {
    let mut hasher = Hasher::new();
    hasher.update(b"haulout devnet validator");
    hasher.update(seed);
    hasher.update(i.to_le_bytes());
    hasher.update(((epoch + i) / KEY_EPOCHS).to_le_bytes());
    let mut secret = hasher.finalize().into_inner();
    secret[0] &= 0x3f;
    secret[31] |= 1;
    Bls12381PrivateKey::new(secret).expect("a valid scalar")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sui_crypto::bls12381::ValidatorCommitteeSignatureVerifier;
    use sui_sdk_types::{Digest, GasCostSummary};

    fn summary(sequence_number: u64) -> CheckpointSummary {
        CheckpointSummary {
            epoch: 3,
            sequence_number,
            network_total_transactions: 1,
            content_digest: Digest::ZERO,
            previous_digest: None,
            epoch_rolling_gas_cost_summary: GasCostSummary::default(),
            timestamp_ms: 1,
            checkpoint_commitments: vec![],
            end_of_epoch_data: None,
            version_specific_data: vec![],
        }
    }

    #[test]
    fn quorums_of_all_sizes_verify() {
        for count in [1, 4, 7, 128] {
            let validators = Validators::generate(&[7; 32], 3, count);
            let total: u64 = validators.committee.members.iter().map(|m| m.stake).sum();
            assert_eq!(total, TOTAL_STAKE);
            let verifier =
                ValidatorCommitteeSignatureVerifier::new(validators.committee.clone()).unwrap();
            let summary = summary(5);
            let signature = validators.sign(&summary);
            verifier.verify_checkpoint_summary(&summary, &signature).unwrap();
            let other = Validators::generate(&[8; 32], 3, count).sign(&summary);
            assert!(verifier.verify_checkpoint_summary(&summary, &other).is_err());
        }
    }

    #[test]
    fn committees_overlap_and_change() {
        let keys = |epoch| {
            let committee = Validators::generate(&[7; 32], epoch, 8).committee;
            committee.members.into_iter().map(|m| m.public_key).collect::<Vec<_>>()
        };
        let (a, b) = (keys(1), keys(2));
        let common = a.iter().filter(|key| b.contains(key)).count();
        assert_eq!(common, 6);
        assert_eq!(a, keys(1));
    }
}
