//! All ways of hashing agree with the plain one.

use proptest::prelude::*;

use super::*;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

fn nodes(seed: u64, count: usize) -> Vec<Node> {
    bytes(seed, count * 32).as_chunks::<32>().0.to_vec()
}

proptest! {
    #[test]
    fn leaves_agree(seed in any::<u64>(), half in 1..300usize, count in 1..40usize) {
        let size = 2 * half;
        let symbols = bytes(seed, size * count);
        let expected: Vec<_> = symbols.chunks(size).map(leaf).collect();
        let mut found = vec![EMPTY; count];
        leaves(&symbols, size, &mut found);
        prop_assert_eq!(&found, &expected);
        found.fill(EMPTY);
        portable::leaves(&symbols, size, &mut found);
        prop_assert_eq!(&found, &expected);
    }

    #[test]
    fn pieces_agree(seed in any::<u64>(), blocks in 1..4usize, half in 1..100usize, count in 1..20usize) {
        let (head, tail) = (128 * blocks, 2 * half);
        let size = 2 * head + tail;
        let symbols = bytes(seed, size * count);
        let expected: Vec<_> = symbols.chunks(size).map(leaf).collect();
        let part = |from: usize, len: usize| -> Vec<u8> {
            symbols.chunks(size).flat_map(|symbol| symbol[from..from + len].to_vec()).collect()
        };
        for mut hashes in [Unfinished::new(count), Unfinished::portable(count)] {
            hashes.update(&symbols, size, head, false);
            hashes.update(&part(head, head), head, head, false);
            hashes.update(&symbols[2 * head..], size, tail, true);
            let mut found = vec![EMPTY; count];
            hashes.finish(&mut found);
            prop_assert_eq!(&found, &expected);
        }
    }

    #[test]
    fn parents_agree(seed in any::<u64>(), count in 1..70usize) {
        let nodes = nodes(seed, count);
        let pair = |pair: &[Node]| inner(&pair[0], pair.get(1).unwrap_or(&EMPTY));
        let expected: Vec<_> = nodes.chunks(2).map(pair).collect();
        for parents in [parents, portable::parents] {
            let mut found = nodes.clone();
            let count = parents(&mut found);
            prop_assert_eq!(&found[..count], &expected);
        }
    }

    #[test]
    fn parents_across_agree(seed in any::<u64>(), count in 1..40usize, lonely in any::<bool>()) {
        let (left, right) = (nodes(seed, count), nodes(!seed, count));
        let right = (!lonely).then_some(&right[..]);
        let other = |i: usize| right.map_or(EMPTY, |right| right[i]);
        let expected: Vec<_> = (0..count).map(|i| inner(&left[i], &other(i))).collect();
        for parents in [parents_across, portable::parents_across] {
            let mut found = left.clone();
            parents(&mut found, right);
            prop_assert_eq!(&found, &expected);
        }
    }
}
