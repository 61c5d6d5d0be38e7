# Reference numbers from R: `Rscript reference.R > reference_r.csv`. R >= 4.2, brglm2 >= 0.8.
# Pairs are the i-th sample of group 0 with the i-th of group 1, where the groups are of one size.
suppressPackageStartupMessages(library(brglm2))
data <- read.csv("data.csv", colClasses = c("character", "integer", "numeric"))
rows <- list()
put <- function(dataset, column, value) {
  if (is.finite(value)) rows[[length(rows) + 1]] <<- sprintf("%s,%s,%.17g", dataset, column, value)
}
d_limit <- function(t, df, target) {
  uniroot(function(ncp) pt(t, df, ncp) - target, t + c(-1, 1) * (8 + 2 * abs(t)), tol = 1e-13)$root
}
none <- c(student = NA, welch = NA, mannwhitney = NA, paired = NA, logit_wald = NA, logit_lr = NA, score = NA)
tests <- none
compare <- function(name, x, y) {
  x0 <- x[y == 0]; x1 <- x[y == 1]; n0 <- length(x0); n1 <- length(x1)
  put(name, "n_0", n0); put(name, "n_1", n1); put(name, "mean_0", mean(x0)); put(name, "mean_1", mean(x1))
  put(name, "sd_0", sd(x0)); put(name, "sd_1", sd(x1))
  s <- t.test(x1, x0, var.equal = TRUE); w <- t.test(x1, x0)
  put(name, "student_t", s$statistic); put(name, "student_p", s$p.value)
  put(name, "welch_t", w$statistic); put(name, "welch_p", w$p.value); put(name, "welch_df", w$parameter)
  root <- sqrt(1 / n0 + 1 / n1)
  put(name, "cohens_d", s$statistic * root)
  if (abs(s$statistic) < 15) {
    put(name, "cohens_d_low", d_limit(s$statistic, n0 + n1 - 2, 0.975) * root)
    put(name, "cohens_d_high", d_limit(s$statistic, n0 + n1 - 2, 0.025) * root)
  }
  exact <- min(n0, n1) <= 8 && !any(duplicated(x))
  m <- wilcox.test(x1, x0, exact = exact, correct = TRUE)
  put(name, "auc", m$statistic / n0 / n1); put(name, "mannwhitney_p", m$p.value)
  put(name, "mannwhitney_p_log10", log10(m$p.value))
  tests[c("student", "welch", "mannwhitney")] <<- c(s$p.value, w$p.value, m$p.value)
  if (n0 == n1) {
    p <- t.test(x1, x0, paired = TRUE)
    put(name, "paired_t", p$statistic); put(name, "paired_p", p$p.value); put(name, "n_pairs", n0)
    tests["paired"] <<- p$p.value
  }
  o <- t.test(x, mu = 0.5); put(name, "one_sample_t", o$statistic); put(name, "one_sample_p", o$p.value)
  if (max(x0) > min(x1) && max(x1) > min(x0)) {
    g <- glm(y ~ x, family = binomial, control = glm.control(epsilon = 1e-14, maxit = 200)); c <- summary(g)$coefficients
    put(name, "logit_coef", c[2, 1]); put(name, "logit_intercept", c[1, 1]); put(name, "logit_se", c[2, 2])
    put(name, "logit_wald_z", c[2, 3]); put(name, "logit_wald_p", c[2, 4])
    lr <- g$null.deviance - g$deviance
    put(name, "logit_lr", lr); put(name, "logit_lr_p", pchisq(lr, 1, lower.tail = FALSE))
    put(name, "logit_coef_std", c[2, 1] * sqrt(mean((x - mean(x))^2)))
    tests[c("logit_wald", "logit_lr")] <<- c(c[2, 4], pchisq(lr, 1, lower.tail = FALSE))
  }
  a <- anova(glm(y ~ x, family = binomial, control = glm.control(epsilon = 1e-14, maxit = 200)), test = "Rao")
  put(name, "score", a$Rao[2]); put(name, "score_p", a[["Pr(>Chi)"]][2])
  tests["score"] <<- a[["Pr(>Chi)"]][2]
  f <- glm(y ~ x, family = binomial, method = "brglmFit", type = "AS_mean", epsilon = 1e-13, maxit = 10000, slowit = 0.7)
  c <- summary(f)$coefficients
  put(name, "firth_coef", c[2, 1]); put(name, "firth_intercept", c[1, 1]); put(name, "firth_se", c[2, 2])
  put(name, "firth_coef_std", c[2, 1] * sqrt(mean((x - mean(x))^2)))
  tests
}
family <- sapply(unique(data$dataset), function(name) {
  part <- data[data$dataset == name, ]
  tests <<- none
  # glm and brglm2 stop at scales like 1e150: what R has reached by then stands, the rest is mpmath's.
  suppressWarnings(tryCatch(compare(name, part$x, part$label), error = function(e) tests))
})
for (test in rownames(family)) for (method in c("bonferroni", "holm", "BH", "BY")) {
  adjusted <- p.adjust(family[test, ], method)  # leaves missing p out of the family
  for (i in seq_along(adjusted)) put(colnames(family)[i], sprintf("%s_p_%s", test, tolower(method)), adjusted[i])
}
cat("dataset,column,value\n"); cat(unlist(rows), sep = "\n"); cat("\n")
