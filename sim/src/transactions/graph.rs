//! Cycles in a graph of dependencies.
//!
//! Source: Tarjan 1972 for the components, without recursion; a shortest cycle by breadth-first search.

use std::collections::VecDeque;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// It wrote the version before the other's.
    WriteWrite,
    /// The other read what it wrote.
    WriteRead,
    /// It read what the other overwrote.
    ReadWrite,
    /// It ended before the other began.
    RealTime,
}

/// A directed graph with labelled edges.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    out: Vec<Vec<(usize, Edge)>>,
}

impl Graph {
    /// A graph of so many nodes without edges.
    pub fn new(nodes: usize) -> Graph {
        Graph { out: vec![Vec::new(); nodes] }
    }

    /// Adds a node and names it.
    pub fn add_node(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    /// Adds an edge; one from a node to itself says nothing.
    pub fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to
            && let Some(list) = self.out.get_mut(from)
            && !list.contains(&(to, edge))
        {
            list.push((to, edge));
        }
    }

    fn next(&self, node: usize) -> &[(usize, Edge)] {
        self.out.get(node).map_or(&[], Vec::as_slice)
    }

    /// The strongly connected components of more than one node.
    pub fn components(&self) -> Vec<Vec<usize>> {
        let n = self.out.len();
        let (mut index, mut low) = (vec![usize::MAX; n], vec![0usize; n]);
        let (mut on_stack, mut stack) = (vec![false; n], Vec::new());
        let mut found = Vec::new();
        let mut count = 0;
        for root in 0..n {
            if index[root] != usize::MAX {
                continue;
            }
            let mut work = vec![(root, 0usize)];
            while let Some((node, edge)) = work.last_mut() {
                let node = *node;
                if *edge == 0 {
                    (index[node], low[node]) = (count, count);
                    count += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some((to, _)) = self.next(node).get(*edge) {
                    *edge += 1;
                    if index[*to] == usize::MAX {
                        work.push((*to, 0));
                    } else if on_stack[*to] {
                        low[node] = low[node].min(index[*to]);
                    }
                    continue;
                }
                work.pop();
                if let Some((parent, _)) = work.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
                if low[node] == index[node] {
                    let mut component = Vec::new();
                    while let Some(x) = stack.pop() {
                        on_stack[x] = false;
                        component.push(x);
                        if x == node {
                            break;
                        }
                    }
                    if component.len() > 1 {
                        found.push(component);
                    }
                }
            }
        }
        found
    }

    /// A shortest cycle through nodes of one component: the nodes in order, each with the edge to the next.
    pub fn shortest_cycle(&self, component: &[usize]) -> Vec<(usize, Edge)> {
        let inside: std::collections::BTreeSet<usize> = component.iter().copied().collect();
        let mut best: Vec<(usize, Edge)> = Vec::new();
        for start in component.iter().take(64) {
            let cycle = self.cycle_from(*start, &inside);
            if !cycle.is_empty() && (best.is_empty() || cycle.len() < best.len()) {
                best = cycle;
            }
        }
        best
    }

    fn cycle_from(&self, start: usize, inside: &std::collections::BTreeSet<usize>) -> Vec<(usize, Edge)> {
        let mut from = std::collections::BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for (to, edge) in self.next(node) {
                if *to == start {
                    let mut cycle = vec![(node, *edge)];
                    let mut at = node;
                    while let Some((before, edge)) = from.get(&at) {
                        cycle.push((*before, *edge));
                        at = *before;
                    }
                    cycle.reverse();
                    return cycle;
                }
                if inside.contains(to) && !from.contains_key(to) {
                    from.insert(*to, (node, *edge));
                    queue.push_back(*to);
                }
            }
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_found_and_a_line_is_none() {
        let mut g = Graph::new(5);
        g.add(0, 1, Edge::WriteWrite);
        g.add(1, 2, Edge::WriteRead);
        g.add(3, 0, Edge::RealTime);
        assert!(g.components().is_empty());
        g.add(2, 0, Edge::ReadWrite);
        g.add(2, 4, Edge::ReadWrite);
        let all = g.components();
        assert_eq!(all.len(), 1);
        let mut cycle: Vec<usize> = g.shortest_cycle(&all[0]).iter().map(|c| c.0).collect();
        cycle.sort_unstable();
        assert_eq!(cycle, [0, 1, 2]);
    }
}
