//! Huffman codes of limited length.

/// Most symbols of an alphabet.
const SYMBOLS: usize = 288;

/// Lengths of the codes of symbols that occur `counts` times, none longer than `limit`, into `lengths`. A symbol that does not occur
/// has none. There are two codes at least, as some decoders want.
pub(super) fn lengths(counts: &[u32], limit: usize, lengths: &mut [u8]) {
    lengths.fill(0);
    let mut keys = [0; SYMBOLS];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        keys[used] = u64::from(count) << 16 | symbol as u64;
        used += 1;
    }
    let keys = &mut keys[..used];
    let symbol = |key: u64| (key & 0xffff) as usize;
    if used < 2 {
        let one = keys.first().map_or(0, |key| symbol(*key));
        lengths[one] = 1;
        lengths[usize::from(one == 0)] = 1;
        return;
    }
    // No two are equal, so that there is one order.
    keys.sort_unstable();
    let mut of_length = depths(keys);
    limited(&mut of_length, limit);
    // The rarest have the longest.
    let longest_first = (1..=limit).rev().flat_map(|length| (0..of_length[length]).map(move |_| length as u8));
    for (key, length) in keys.iter().zip(longest_first) {
        lengths[symbol(*key)] = length;
    }
}

/// How many leaves of the tree have each depth. The tree is made in place, of parents (Moffat and Katajainen, 1995).
fn depths(keys: &[u64]) -> [u32; SYMBOLS] {
    let n = keys.len();
    // A weight, then of an inner node its parent, then its depth.
    let mut nodes = [0; SYMBOLS];
    for (node, key) in nodes.iter_mut().zip(keys) {
        *node = (key >> 16) as u32;
    }
    let (mut root, mut leaf) = (0, 0);
    for next in 0..n - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf >= n || (root < next && nodes[root] < nodes[leaf]) {
                weight += nodes[root];
                nodes[root] = next as u32;
                root += 1;
            } else {
                weight += nodes[leaf];
                leaf += 1;
            }
        }
        nodes[next] = weight;
    }
    let mut leaves = [0; SYMBOLS];
    let mut inner = [0; SYMBOLS];
    nodes[n - 2] = 0;
    inner[0] = 1;
    for node in (0..n - 2).rev() {
        nodes[node] = nodes[nodes[node] as usize] + 1;
        inner[nodes[node] as usize] += 1;
    }
    for depth in 1..n {
        leaves[depth] = 2 * inner[depth - 1] - inner[depth];
    }
    leaves
}

/// Makes longer codes as long as the limit, and others longer, until there is room for all.
fn limited(of_length: &mut [u32; SYMBOLS], limit: usize) {
    let beyond: u32 = of_length[limit + 1..].iter().sum();
    if beyond == 0 {
        return;
    }
    of_length[limit] += beyond;
    let mut room: u32 = (1..=limit).map(|length| of_length[length] << (limit - length)).sum();
    while room > 1 << limit {
        // One moves down and takes one of the longest beside it.
        let from = (1..limit).rev().find(|length| of_length[*length] > 0).unwrap_or(limit - 1);
        of_length[from] -= 1;
        of_length[from + 1] += 2;
        of_length[limit] -= 1;
        room -= 1;
    }
}

/// The canonical codes of these lengths, the first bit lowest.
pub(super) fn codes(lengths: &[u8], codes: &mut [u16]) {
    let mut next = [0; 16];
    for &length in lengths.iter().filter(|length| **length > 0) {
        next[usize::from(length)] += 1;
    }
    let mut code = 0;
    for next in &mut next[1..] {
        let count = *next;
        *next = code;
        code = (code + count) << 1;
    }
    for (code, &length) in codes.iter_mut().zip(lengths) {
        *code = 0;
        if length > 0 {
            let next = &mut next[usize::from(length)];
            *code = (*next as u16).reverse_bits() >> (16 - length);
            *next += 1_u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(counts: &[u32], limit: usize) -> Vec<u8> {
        let mut made = vec![0; counts.len()];
        lengths(counts, limit, &mut made);
        made
    }

    #[test]
    fn known_codes() {
        assert_eq!(of(&[0, 0, 0], 15), [1, 1, 0]);
        assert_eq!(of(&[0, 0, 7], 15), [1, 0, 1]);
        assert_eq!(of(&[1, 1, 2, 4], 15), [3, 3, 2, 1]);
        let fibonacci = [1, 1, 2, 3, 5, 8, 13, 21];
        assert_eq!(of(&fibonacci, 15), [7, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(of(&fibonacci, 4).iter().max(), Some(&4));
        // The example of RFC 1951.
        let mut made = [0; 8];
        codes(&[3, 3, 3, 3, 3, 2, 4, 4], &mut made);
        assert_eq!(made, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }

    proptest! {
        #[test]
        fn codes_are_complete_and_no_longer_than_the_limit(
            counts in prop::collection::vec(prop_oneof![Just(0), 1_u32..4, 1_u32..100_000], 19..286),
            limit in 9_usize..16,
        ) {
            let made = of(&counts, limit);
            let room: u32 = made.iter().filter(|length| **length > 0).map(|length| 1 << (limit - usize::from(*length))).sum();
            prop_assert_eq!(room, 1 << limit);
            for (one, length) in counts.iter().zip(&made) {
                for (other, longer) in counts.iter().zip(&made).filter(|(other, _)| **other > 0 && *other < one) {
                    prop_assert!(length <= longer, "{} of {} and {} of {}", length, one, longer, other);
                }
            }
        }
    }
}
