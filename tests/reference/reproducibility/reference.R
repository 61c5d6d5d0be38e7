# Makes reference_r.csv with vegan: Rscript reference.R > reference_r.csv
# Run with R 4.2.2 and vegan 2.6-4 (Debian r-cran-vegan). specpool gives Chao2 with the small sample factor (m - 1)/m and its
# standard error; specaccum(method = "exact") the rarefaction curve; vegdist(method = "jaccard", binary = TRUE) 1 - Jaccard;
# diversity(base = 2) Shannon's entropy in bits.
suppressPackageStartupMessages(library(vegan))
data <- read.csv("data.csv")
cat("dataset,statistic,at,value\n")
put <- function(dataset, statistic, at, value) {
  cat(sprintf("%s,%s,%d,%.17g\n", dataset, statistic, at, value), sep = "")
}
for (name in unique(data$dataset)) {
  part <- data[data$dataset == name, ]
  counts <- unclass(table(part$restart, part$token))
  incidence <- 1 * (counts > 0)
  pool <- specpool(incidence)
  put(name, "unique", 0L, pool$Species)
  put(name, "richness", 0L, pool$chao)
  put(name, "richness_se", 0L, pool$chao.se)
  curve <- specaccum(incidence, method = "exact")
  put(name, "rarefaction", as.integer(curve$sites), curve$richness)
  put(name, "jaccard", 0L, 1 - mean(vegdist(incidence, method = "jaccard", binary = TRUE)))
  put(name, "entropy", 0L, diversity(colSums(counts), base = 2))
}
