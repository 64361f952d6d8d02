/* The groups of integration tests; each returns how many tests failed. */
#ifndef TESTS_GROUPS_H
#define TESTS_GROUPS_H

int run_golden(void);
int run_formats(void);
int run_encodings(void);
int run_transport(void);
int run_errors(void);
int run_truncation(void);
int run_models(void);
int run_refused(void);
int run_reload(void);
int run_control(void);
int run_oip_rules(void);
int run_oip_traps(void);
int run_oip_same(void);
int run_oip_shared(void);
int run_command(void);
int run_invariance(void);
int run_limits(void);
int run_timeouts(void);
int run_drain(void);
int run_metrics(void);

#endif
